"""The settings that decide results: what of the dataset cards and of params.yaml a stage depends on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinprompt.contract.params_schema import knowledge_of, method_names
from clinprompt.data.card import Card
from clinprompt.data.card_parts import card_digests
from clinprompt.data.layouts import KINDS
from clinprompt.data.load import load_card
from clinprompt.errors import InputMissing
from clinprompt.files import sha256_file, write_text
from clinprompt.knowledge.review.decisions import decisions_path
from clinprompt.params import Params
from clinprompt.schema import to_yaml
from components.lock.fit import trainings
from components.sources import digest_of, method_digest

_HEAD = "# What of the cards and of params.yaml decides results. `dvc repro` renews this file first.\n"


def cards(params: Params, root: Path) -> list[Card]:
    """The cards of the datasets that are run, in the params' order."""
    return [load_card(root / "datasets" / f"{name}.yaml") for name in params.datasets]


def settings_lock(params: Params, root: Path, decisions: str | None = None) -> str:
    """The text of runs/settings.lock for the project at `root`.

    It holds `datasets` (of each the digests of the parts of its card, of its layout's code, and of its files of
    reviewed descriptions and of decisions on descriptions), `candidates` and `methods`, with the variants (of each the
    digest of the method's code, and the knobs that are not its defaults), and `knowledge`, what of the stage `describe`
    they read.

    Args:
        decisions: SHA-256 of decisions that stand in the place of those that the only dataset's card names.
    """
    content: dict[str, Any] = {"datasets": {}, "candidates": {}, "methods": {}, "knowledge": []}
    known = cards(params, root)
    content["knowledge"] = _knowledge(params, known)
    for name, card in zip(params.datasets, known, strict=True):
        own = {"layout": digest_of([KINDS[card.reader.kind]], root), "reviewed": _reviewed(card, root)}
        decided = decisions_path(card, root / "datasets" / f"{name}.yaml")
        own["decisions"] = decisions or (sha256_file(decided) if decided is not None and decided.is_file() else "")
        _put(content["datasets"], name, {**card_digests(card), **own})
    for name in params.candidates.names:
        spec = params.candidate(name)
        code = method_digest(spec.method, root)
        _put(content["candidates"], name, {"method": spec.method, "sources": code, "knobs": spec.knobs | spec.variant})
    for name in [*method_names(), *params.candidates.variants]:
        spec = params.candidate(name)
        knobs = {"knobs": spec.knobs} | ({"method": spec.method, "variant": spec.variant} if spec.variant else {})
        _put(content["methods"], name, {"sources": method_digest(spec.method, root)} | knobs)
    return _HEAD + to_yaml(content, sort_keys=True)


def write_settings_lock(params: Params, root: Path, path: Path) -> None:
    """Write it."""
    write_text(path, settings_lock(params, root))


def _reviewed(card: Card, root: Path) -> str:
    """SHA-256 of the card's file of reviewed descriptions; "" where it names none.

    Raises:
        InputMissing: it is not there.
    """
    if card.knowledge.descriptions is None:
        return ""
    path = root / "datasets" / card.knowledge.descriptions
    if not path.is_file():
        raise InputMissing(
            f"datasets/{card.name}.yaml: knowledge.descriptions: {card.knowledge.descriptions} is not beside the card."
        )
    return sha256_file(path)


def _knowledge(params: Params, known: Sequence[Card]) -> list[str]:
    listed = [params.candidate(name) for name in params.protocols.get("methods") or []]
    read = [(spec.method, spec.knobs | spec.variant) for spec in listed]
    read += [(training.method, training.knobs) for training in trainings(params, known)]
    return sorted({name for method, knobs in read for name in knowledge_of(method, knobs)})


def _put(mapping: dict[str, Any], name: str, value: Any) -> None:
    """Set a value where DVC looks for a name: it takes a dot for a step down."""
    *parents, last = name.split(".")
    for parent in parents:
        mapping = mapping.setdefault(parent, {})
    mapping[last] = value
