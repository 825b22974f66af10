"""Procedural phantoms: generated into a folder, and from then on an ordinary table with its images."""

import inspect
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
_GENERATOR = ("drawing.py", "organs.py", "phantom.py")


class PhantomOptions(Section):
    """The keyword arguments of `clinprompt.demo.phantom.write_phantom`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


def read(root: Path, card: Card, options: PhantomOptions) -> Listing:
    """List the images that `make` has drawn, as the layout "table" does."""
    return table.read(root, card, table.TableOptions())


def make(folder: Path, options: PhantomOptions) -> None:
    """Write the phantom with these options to a new folder, and a stamp that says so.

    Raises:
        BadParams: the generator has no such option, or refuses its value.
    """
    from clinprompt.demo.phantom import write_phantom

    values = dict(options.model_extra or {})
    parameters = list(inspect.signature(write_phantom).parameters.values())[1:]
    known = [p.name for p in parameters]
    for key in values:
        if key not in known and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise BadParams(f"reader.{key}: the phantom has no such option; it has {', '.join(known)}.")
    folder.mkdir(parents=True)
    write_phantom(folder, **values)
    write_json(folder / STAMP, stamp(options))


def is_made(folder: Path, options: Section) -> bool:
    """Whether a folder was written with these options by the generator as it is now."""
    return (folder / STAMP).is_file() and read_json(folder / STAMP) == stamp(options)


def stamp(options: Section) -> dict[str, Any]:
    """What the drawn files depend on: the options and the digest of the generator's code."""
    sources = [Path(__file__).with_name(name) for name in _GENERATOR]
    code = sha256_bytes("".join(sha256_file(source) for source in sources).encode())
    return {"format": 1, "generator": code, "options": dict(options.model_extra or {})}


LAYOUT = Layout(PhantomOptions, read, has_columns=True, generator=Generator(STAMP, make, is_made))
