"""The parts of a dataset card that decide results, by digest, so that a change touches only what reads that part."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.errors import InputCorrupt
from clinprompt.files import sha256_bytes
from clinprompt.schema import read_yaml

if TYPE_CHECKING:
    from clinprompt.data.card import Card

_PROSE = {"title", "licence", "source", "how_to_get"}  # what a card says to people only
_LISTS = ("classes", "novel_classes")
_OF_CLASSES = {"aliases", "phrase"}
# What only some stages read of a card, as dvc.yaml says; the part "card" is all the rest, but for the prose.
_PARTS: dict[str, Any] = {
    "files": dict.fromkeys(("path", "reader", "split", "metadata", "patient_ids", "regions"), True)
    | {"classes": {"__all__": {"aliases"}}, "novel_classes": {"__all__": {"aliases"}}},
    "checks": {"on_leak": True, "expectations": True},
    "phrases": {"classes": {"__all__": {"phrase"}}, "novel_classes": {"__all__": {"phrase"}}},
    "terms": {"knowledge": True},
    "knobs": {"methods": True, "base_to_novel": True},
    "slices": {"slices": True},
}


def card_digests(card: "Card") -> dict[str, str]:
    """SHA-256 of each part of a card by itself, under the names that dvc.yaml has for them."""
    rest = dict.fromkeys(_elsewhere(), True) | {key: {"__all__": _OF_CLASSES} for key in _LISTS}
    digests = {"card": _digest(_told(card.model_dump(mode="json", exclude=rest)))}
    for name, part in _PARTS.items():
        digests[name] = _digest(_told(card.model_dump(mode="json", include=part)))
    return digests


def rest_digest(path: Path) -> str:
    """SHA-256 of the part "card" as a card's file has it, for stages that look often and check nothing of it.

    Raises:
        InputMissing, BadParams: there is no such file, or it is no YAML.
        InputCorrupt: it is no card.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(
        isinstance(info, dict) for key in _LISTS for info in values.get(key) or []
    ):
        raise InputCorrupt(f"{path} is no dataset card; see docs/datasets.md.")
    rest = {key: value for key, value in values.items() if key not in _elsewhere()}
    lists = {
        key: [{k: v for k, v in info.items() if k not in _OF_CLASSES} for info in values.get(key) or []]
        for key in _LISTS
    }
    return _digest(_told(rest | lists))


def _elsewhere() -> set[str]:
    """The keys that the part "card" leaves out."""
    return _PROSE | {name for part in _PARTS.values() for name in part if name not in _LISTS}


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """Without novel classes where there are none, as cards were before there could be."""
    return {key: value for key, value in values.items() if key != "novel_classes" or value}


def _digest(values: Any) -> str:
    return sha256_bytes(json.dumps(values, sort_keys=True).encode())
