"""The settings that decide results: what of the dataset cards and of params.yaml a stage depends on."""

import json
from pathlib import Path
from typing import Any

from clinprompt.contract.params_schema import knowledge_of, method_names
from clinprompt.data.card import Card
from clinprompt.data.layouts import KINDS
from clinprompt.data.load import load_card
from clinprompt.files import sha256_bytes, write_text
from clinprompt.params import Params
from clinprompt.schema import to_yaml
from components.sources import digest_of, method_digest

_HEAD = "# What of the cards and of params.yaml decides results. `dvc repro` renews this file first.\n"
_PROSE = {"title", "licence", "source", "how_to_get"}  # what a card says to people only
# What only some stages read of a card, as dvc.yaml says; the part "card" is all the rest, but for the prose.
_PARTS: dict[str, Any] = {
    "files": dict.fromkeys(("path", "reader", "split", "metadata", "patient_ids"), True)
    | {"classes": {"__all__": {"aliases"}}},
    "checks": {"on_leak": True, "expectations": True},
    "phrases": {"classes": {"__all__": {"phrase"}}},
    "knobs": {"methods": True, "base_to_novel": True},
    "slices": {"slices": True},
}


def cards(params: Params, root: Path) -> list[Card]:
    """The cards of the datasets that are run, in the params' order."""
    return [load_card(root / "datasets" / f"{name}.yaml") for name in params.datasets]


def settings_lock(params: Params, root: Path) -> str:
    """The text of runs/settings.lock for the project at `root`.

    It holds `datasets` (of each the digests of the parts of its card, and of its layout's code), `candidates` and
    `methods` (of each the digest of the method's code, and the knobs that are not its defaults), and `knowledge`, the
    files of the stage `describe` that they read.
    """
    content: dict[str, Any] = {"datasets": {}, "candidates": {}, "methods": {}, "knowledge": _knowledge(params)}
    for name, card in zip(params.datasets, cards(params, root), strict=True):
        layout = digest_of([KINDS[card.reader.kind]], root)
        _put(content["datasets"], name, {**_card_digests(card), "layout": layout})
    for name in params.candidates.names:
        spec = params.candidate(name)
        code = method_digest(spec.method, root)
        _put(content["candidates"], name, {"method": spec.method, "sources": code, "knobs": spec.knobs | spec.variant})
    for name in method_names():
        content["methods"][name] = {"sources": method_digest(name, root), "knobs": params.methods.get(name, {})}
    return _HEAD + to_yaml(content, sort_keys=True)


def write_settings_lock(params: Params, root: Path, path: Path) -> None:
    """Write it."""
    write_text(path, settings_lock(params, root))


def _card_digests(card: Card) -> dict[str, str]:
    """Of each part of a card by itself, so that a change touches only the stages that read that part."""
    fields = {name for part in _PARTS.values() for name in part if name != "classes"}
    of_classes = {"aliases", "phrase"}
    rest = dict.fromkeys(_PROSE | fields, True) | {"classes": {"__all__": of_classes}}
    digests = {"card": _digest(card.model_dump(mode="json", exclude=rest))}
    for name, part in _PARTS.items():
        digests[name] = _digest(card.model_dump(mode="json", include=part))
    return digests


def _digest(values: Any) -> str:
    return sha256_bytes(json.dumps(values, sort_keys=True).encode())


def _knowledge(params: Params) -> list[str]:
    methods = {
        *(params.candidate(name).method for name in params.candidates.names),
        *(params.protocols.get("methods") or []),
    }
    return sorted({file for method in methods for file in knowledge_of(method)})


def _put(mapping: dict[str, Any], name: str, value: Any) -> None:
    """Set a value where DVC looks for a name: it takes a dot for a step down."""
    *parents, last = name.split(".")
    for parent in parents:
        mapping = mapping.setdefault(parent, {})
    mapping[last] = value
