"""Tables of papers, from `papers.yaml`: their datasets, methods and params, and the edits of params.yaml for them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from clinprompt.data.card import Card
from clinprompt.data.layouts import layout_of
from clinprompt.data.load import load_card
from clinprompt.data.locate import data_root
from clinprompt.errors import BadParams
from clinprompt.files import write_text
from clinprompt.schema import Section, check, read_yaml

FILE = Path(__file__).with_name("papers.yaml")


class Paper(Section):
    """A table: one protocol, the datasets and methods that it shows, and params by dotted keys."""

    title: str
    paper: str
    protocol: str
    datasets: list[str]
    methods: list[str]
    params: dict[str, Any]


class _PapersFile(Section):
    papers: dict[str, Paper]


def papers() -> dict[str, Paper]:
    """All ready-made tables, in the file's order."""
    return check(_PapersFile, {"papers": read_yaml(FILE)}, str(FILE)).papers


def paper(name: str) -> Paper:
    """One of them.

    Raises:
        BadParams: there is none of this name.
    """
    known = papers()
    if name not in known:
        raise BadParams(f"There is no ready-made table {name!r}; known: {', '.join(known)}.")
    return known[name]


def is_here(card: Card, source: Path, root: str | None) -> bool:
    """Whether a dataset's files are where `ingest` would look: at `source`, or below the data root."""
    if layout_of(card.reader.kind, f"the card {card.name}").generator is not None or source.exists():
        return True
    folder = data_root(root)
    if folder is None and not Path(card.location).is_absolute():
        return False
    return ((folder or Path()) / card.location).exists()


def availability(datasets: Sequence[str], project: Path, root: str | None) -> dict[str, str | None]:
    """For each dataset None when it is here, else how to get it."""
    cards = {name: load_card(project / "datasets" / f"{name}.yaml") for name in datasets}
    return {n: None if is_here(c, project / "data" / n, root) else c.how_to_get for n, c in cards.items()}


def edits(table: Paper, datasets: Sequence[str]) -> dict[str, Any]:
    """What to set in params.yaml, by dotted keys, for these of the table's datasets."""
    return {
        "datasets": list(datasets),
        "protocols.datasets": list(datasets),
        "protocols.methods": list(table.methods),
        "protocols.names": [table.protocol],
        # What another table or a user has left there is not this table's.
        "training.augmentation": "none",
        f"protocols.{table.protocol}.preset": None,
        f"protocols.{table.protocol}.augmentation": None,
        f"protocols.{table.protocol}.budget": None,
        f"protocols.{table.protocol}.methods": {},
        **table.params,
    }


def edit_params(path: Path, changes: Mapping[str, Any]) -> None:
    """Set values in params.yaml; comments and order stay.

    Raises:
        BadParams: a key is not there.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    yaml.indent(mapping=2, sequence=4, offset=2)  # as params.yaml has lists
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = document
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise BadParams(f"{path}: there is no key {key}.")
        section[last] = _in_flow_style(yaml, value)
    stream = io.StringIO()
    yaml.dump(document, stream)
    write_text(path, stream.getvalue())


def _in_flow_style(yaml: YAML, value: Any) -> Any:
    """A value whose lists stand on one line."""
    if isinstance(value, dict):
        return {key: _in_flow_style(yaml, item) for key, item in value.items()}
    if isinstance(value, list):
        sequence = yaml.seq(value)
        sequence.fa.set_flow_style()
        return sequence
    return value
