"""Banks of descriptions of brain-phantom's classes: raw ones, and with planted false sentences."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.knowledge import GOLD, ROOT
from clinprompt.data.card import Card, ClassInfo
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams
from clinprompt.schema import read_yaml

BRAINS = "brain-tumor-mri"  # the card of the gold set that has brain-phantom's classes
SHARE = 0.3  # of a poisoned bank
KINDS = ("sibling", "card", "denial")
PLANTED = "planted "  # begins the aspect of a planted sentence
_SEED = 0  # of what is drawn here


@dataclass(frozen=True)
class Sentence:
    """A row of a bank; `aspect` tells the kind of a planted one."""

    class_id: str
    text: str
    aspect: str


Bank = list[Sentence]


def raw_bank(generated: pd.DataFrame, count: int) -> Bank:
    """The first `count` generated sentences of each class, its aspects taking turns, whatever the checks said of them.

    Args:
        generated: the table that `describe` writes.

    Raises:
        BadParams: a class has fewer.
    """
    bank: Bank = []
    told = generated[generated["text"].str.strip() != ""]
    for class_id, rows in told.groupby("class", sort=False):
        turn = rows.groupby("aspect", sort=False).cumcount()
        first = rows.loc[turn.sort_values(kind="stable").index][:count]
        if len(first) < count:
            raise BadParams(f"The class {class_id} has {len(first)} sentences, {count} are wanted; raise --per-aspect.")
        bank += [
            Sentence(str(class_id), text, aspect)
            for text, aspect in zip(first["text"].astype(str), first["aspect"].astype(str), strict=True)
        ]
    return bank


def as_many(bank: Sequence[Sentence], counts: Mapping[str, int]) -> Bank:
    """So many sentences of each class, drawn from a bank without a look at them, in its order."""
    kept: Bank = []
    for class_id in dict.fromkeys(one.class_id for one in bank):
        of_class = [one for one in bank if one.class_id == class_id]
        drawn = _drawn(len(of_class), min(len(of_class), counts.get(class_id, 0)))
        kept += [of_class[place] for place in drawn]
    return kept


def poisoned(bank: Sequence[Sentence], card: Card) -> Bank:
    """A bank in which `SHARE` of each class's sentences, at random places, are replaced by planted false ones."""
    result = list(bank)
    for info in card.classes:
        places = [place for place, one in enumerate(bank) if one.class_id == info.id]
        chosen = _drawn(len(places), round(SHARE * len(places)))
        for place, false in zip(chosen, islice(_taking_turns(info, card), len(chosen)), strict=True):
            result[places[place]] = false
    return result


def write_bank(path: Path, bank: Sequence[Sentence], card: Card, *, checked: bool) -> None:
    """Write a file of reviewed descriptions; unless `checked`, each row overrules the checks."""
    names = {info.id: info.name for info in card.classes}
    overrule = ("", "") if checked else ("yes", "the checks have no say in this bank")
    rows = [(names[one.class_id], one.text, one.aspect, *overrule) for one in bank]
    pd.DataFrame(rows, columns=["class", "text", "aspect", "accepted", "reason"]).to_csv(path, index=False)


def _taking_turns(info: ClassInfo, card: Card) -> Iterator[Sentence]:
    """False sentences of a class, the kinds taking turns; a kind that has no more is passed over."""
    for texts in zip_longest(*_false(info, card).values()):
        yield from (Sentence(info.id, text, PLANTED + kind) for kind, text in zip(KINDS, texts, strict=True) if text)


def _false(info: ClassInfo, card: Card) -> dict[str, list[str]]:
    """True sentences of the gold set made false of a class by rule.

    `sibling`: of another class of the card, under this one's name. `card`: likewise of a card of another modality and
    another organ. `denial`: of the class itself, denied.
    """
    gold = read_yaml(GOLD)
    own = gold[BRAINS]["sentences"]
    made: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for other in card.classes:
        if other.id != info.id:
            made["sibling"] += [_renamed(text, other.name, info.name) for text in own[other.id][True]]
    for name, of_card in gold.items():
        foreign = load_card(ROOT / "datasets" / f"{name}.yaml")
        if {foreign.modality, foreign.organ} & {card.modality, card.organ}:
            continue
        for other in foreign.classes:
            texts = of_card["sentences"].get(other.id, {}).get(True, [])
            made["card"] += [_renamed(text, other.name, info.name) for text in texts]
    made["denial"] = [f"It is not true that {text[0].lower()}{text[1:]}" for text in own[info.id][True]]
    order = np.random.default_rng([_SEED, card.class_ids.index(info.id)])
    return {kind: [texts[k] for k in order.permutation(len(texts))] for kind, texts in made.items()}


def _drawn(of: int, count: int) -> list[int]:
    return sorted(np.random.default_rng(_SEED).choice(of, count, replace=False).tolist())


def _renamed(text: str, name: str, other: str) -> str:
    return re.sub(re.escape(name), other, text, flags=re.IGNORECASE)
