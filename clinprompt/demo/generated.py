"""Datasets that are drawn: into a folder when they are needed, and from then on an ordinary table with its images."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from clinprompt.data.card import Card
from clinprompt.data.layouts import table
from clinprompt.data.layouts.base import Generator, Layout, Listing
from clinprompt.errors import BadParams
from clinprompt.files import read_json, sha256_bytes, sha256_file, write_json
from clinprompt.schema import Section

STAMP = ".phantom.json"

Writer = Callable[..., None]


class DrawnOptions(Section):
    """The keyword arguments of what draws the dataset."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


def drawn_layout(writer: Callable[[], Writer], sources: Sequence[Path]) -> Layout:
    """The layout of a dataset that a function of this package draws.

    Args:
        writer: gives the function: `write(folder, **options)`. It is called, and may import, only when something is
            to be drawn.
        sources: the files of code that the drawn bytes depend on.
    """

    def stamp(options: Section) -> dict[str, Any]:
        """What the drawn files depend on: the options and the digest of the generator's code."""
        code = sha256_bytes("".join(sha256_file(source) for source in sources).encode())
        return {"format": 1, "generator": code, "options": dict(options.model_extra or {})}

    def make(folder: Path, options: DrawnOptions) -> None:
        values = dict(options.model_extra or {})
        write = writer()
        _check(write, values)
        folder.mkdir(parents=True)
        write(folder, **values)
        write_json(folder / STAMP, stamp(options))

    def is_made(folder: Path, options: Section) -> bool:
        return (folder / STAMP).is_file() and read_json(folder / STAMP) == stamp(options)

    return Layout(DrawnOptions, _read, has_columns=True, generator=Generator(STAMP, make, is_made))


def _read(root: Path, card: Card, _options: DrawnOptions) -> Listing:
    """List the images that were drawn, as the layout "table" does."""
    return table.read(root, card, table.TableOptions())


def _check(write: Writer, values: dict[str, Any]) -> None:
    parameters = list(inspect.signature(write).parameters.values())[1:]
    known = [p.name for p in parameters]
    for key in values:
        if key not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise BadParams(f"reader.{key}: the phantom has no such option; it has {', '.join(known)}.")
