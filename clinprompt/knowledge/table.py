"""`table.yaml`: the language models that a params file can name, each pinned to a commit or a digest."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from clinprompt.errors import BadParams, ClinpromptError
from clinprompt.files import read_json
from clinprompt.schema import Section, check, read_yaml

TABLE = Path(__file__).with_name("table.yaml")


class PackageFile(Section):
    """A file that an installed Python package carries."""

    distribution: str
    file: str
    revision: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class HubRepo(Section):
    """A Hugging Face repository at a full commit id."""

    repo: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class LlmEntry(Section):
    """An entry of table.yaml: exactly one of `package` and `hub`; `layers` is the number of decoder layers."""

    about: str
    licence: str
    layers: PositiveInt
    package: PackageFile | None = None
    hub: HubRepo | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "LlmEntry":
        if (self.package is None) == (self.hub is None):
            raise ValueError("needs exactly one of package and hub")
        return self


def llm_table() -> dict[str, LlmEntry]:
    """The models that can be named, by name."""
    table = read_yaml(TABLE)
    return {name: check(LlmEntry, entry, str(TABLE), name) for name, entry in table.items()}


def entry_of(name: str, key: str = "knowledge") -> LlmEntry:
    """A model's entry; `key` is the section of params.yaml that names it, for the message.

    Raises:
        BadParams: there is none.
    """
    table = llm_table()
    if name not in table:
        raise BadParams(
            f"params.yaml: {key}.llm: no entry {name!r} in clinprompt/knowledge/table.yaml; it has "
            f"{', '.join(sorted(table))}. For another model set {key}.path to its folder."
        )
    return table[name]


def declared_layers(name: str, path: str | None = None) -> int | None:
    """How many layers a model has, before it is loaded; None where no file tells.

    Raises:
        BadParams: a name that is not in the table, and no path.
    """
    if path is None:
        return entry_of(name).layers
    try:
        layers: Any = read_json(Path(path) / "config.json").get("num_hidden_layers")
    except (ClinpromptError, AttributeError):
        return None  # what is wrong with the folder is said where it is loaded
    return layers if type(layers) is int else None
