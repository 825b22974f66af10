"""`table.yaml`: the backbones that a params file can name, each pinned to a commit and a digest."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from clinprompt.schema import Name, Section, check, read_yaml

TABLE = Path(__file__).with_name("table.yaml")


class BackboneEntry(Section):
    """One backbone: an open_clip folder in this package (`folder`) or on the Hugging Face hub (`hub`, `revision`).

    `limits` says, in sentences for the report, what it was not trained on and what follows.
    `text_config` stands in for the Hugging Face `config.json` of the text tower where the folder holds none.
    """

    title: str
    licence: str
    source: str
    limits: str
    folder: str | None = None
    hub: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    weights: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    text_config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _pinned_source(self) -> "BackboneEntry":
        if (self.folder is None) == (self.hub is None):
            raise ValueError("needs either folder or hub")
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
