"""Whether what is to be trained fits the backbone and the language model, asked before anything slow runs.

From what files declare: nothing is loaded, and what no file tells is found out where a method is built.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinprompt.backbones.sizes import declared_sizes
from clinprompt.contract.params_schema import knob_defaults, knowledge_of, limits_of, reads_records
from clinprompt.data.card import Card
from clinprompt.errors import BadParams
from clinprompt.experiments.tables.presets import preset_knobs
from clinprompt.knowledge.aspects import aspects_of
from clinprompt.knowledge.needs import unmet as unmet_knowledge
from clinprompt.knowledge.table import declared_layers
from clinprompt.limits import Limit, Sizes, problems
from clinprompt.params import Params
from clinprompt.reports.needs import unmet


@dataclass(frozen=True)
class Training:
    """One method with its knobs on one dataset; `who` is the candidate, or the method in a protocol."""

    who: str
    dataset: str
    method: str
    knobs: dict[str, Any]


def check_fit(params: Params, cards: Sequence[Card]) -> None:
    """Hold every candidate and experiment on every dataset against what their methods need of cards and knobs.

    Raises:
        BadParams: a card lacks what a method's reports are written from; or nobody is named who says what it reads
            of the classes, or an aspect has no template; or who reads what `describe` makes would not wait for it; or
            knobs break a limit, or there is no such backbone or language model. All of a kind are told at once.
    """
    planned = trainings(params, cards)
    _check_records(planned, {card.name: card for card in cards})
    _check_taught(params, cards)
    _check_knowledge(params, planned, {card.name: card for card in cards})
    sizes = _sizes(params, planned)
    datasets: dict[str, list[str]] = {}  # by what is wrong
    for training in planned:
        limits = [Limit(**limit) for limit in limits_of(training.method)]
        for problem in problems(limits, knob_defaults(training.method) | training.knobs, sizes):
            datasets.setdefault(f"{training.who}: {problem}", []).append(training.dataset)
    if datasets:
        told = [f"{problem}{_where(names, cards)}" for problem, names in datasets.items()]
        raise BadParams(
            f"params.yaml: what can't be trained with the backbone {params.backbone.name}: {'; '.join(told)}. Change "
            "these knobs, or take out what has them."
        )


def trainings(params: Params, cards: Sequence[Card]) -> list[Training]:
    """Every candidate and experiment on every dataset that it is for."""
    return [*_candidates(params, cards), *_experiments(params, cards)]


def _check_taught(params: Params, cards: Sequence[Card]) -> None:
    """A candidate whose knobs make it read knowledge must be known to by itself: the graph sees no card's knobs."""
    for training in _candidates(params, cards):
        read = knowledge_of(training.method, training.knobs)
        if read and not params.candidates.is_taught(training.who):
            raise BadParams(
                f"params.yaml: candidates.methods: {training.who!r} on {training.dataset} reads {', '.join(read)} of "
                "the stage describe, by knobs that the card or the section methods sets; set them in a variant instead "
                "(candidates.variants), and list that under candidates.taught."
            )


def _check_knowledge(params: Params, planned: Sequence[Training], cards: Mapping[str, Card]) -> None:
    """Somebody must be named who can say what the methods read of the stage `describe`, and aspects have templates."""
    aspects_of(params.knowledge)
    for training in planned:
        read = knowledge_of(training.method, training.knobs)
        if problem := unmet_knowledge(read, cards[training.dataset], params.knowledge):
            raise BadParams(f"{problem} ({training.who} on {training.dataset} reads {', '.join(read)}.)")


def _check_records(planned: Sequence[Training], cards: Mapping[str, Card]) -> None:
    lacking: dict[str, None] = {}  # an ordered set
    for training in planned:
        if reads_records(training.method):
            knobs = knob_defaults(training.method) | training.knobs
            lacks = unmet(cards[training.dataset], z_scores=knobs["z_scores"], adjust_for=knobs["adjust_for"])
            lacking |= {f"{training.who} on {training.dataset}: {lacks}": None} if lacks else {}
    if lacking:
        raise BadParams(
            f"params.yaml: what can't learn from the subjects' records: {'; '.join(lacking)}. Mend the cards, or take "
            "these methods or datasets out."
        )


def _candidates(params: Params, cards: Sequence[Card]) -> Iterator[Training]:
    for name in params.candidates.names:
        spec = params.candidate(name)
        for card in cards:
            yield Training(name, card.name, spec.method, spec.knobs | _own(card, spec.method) | spec.variant)


def _experiments(params: Params, cards: Sequence[Card]) -> Iterator[Training]:
    protocols = params.protocols
    for protocol in protocols["names"]:
        for name in protocols["methods"]:
            spec = params.candidate(name)
            method, last = spec.method, protocols[protocol].get("methods", {}).get(spec.method, {}) | spec.variant
            for card in (card for card in cards if card.name in protocols["datasets"]):
                published = preset_knobs(protocols[protocol].get("preset"), protocol, method)
                knobs = params.methods.get(method, {}) | _own(card, method, protocol) | published | last
                yield Training(f"{name} in {protocol}", card.name, method, knobs)


def _own(card: Card, method: str, protocol: str | None = None) -> dict[str, Any]:
    """What a card sets of a method's knobs."""
    knobs: dict[str, Any] = {}
    for change in card.knobs(method, protocol).values():
        knobs |= change
    return knobs


def _where(datasets: Sequence[str], cards: Sequence[Card]) -> str:
    return "" if len(datasets) == len(cards) else f" (on {', '.join(datasets)})"


def _sizes(params: Params, planned: Sequence[Training]) -> Sizes:
    declared: dict[str, int | None] = declared_sizes(params.backbone.name, params.backbone.path).model_dump()
    layers = None
    llm = params.knowledge.llm
    if llm is not None and any(knowledge_of(training.method, training.knobs) for training in planned):
        layers = declared_layers(llm, params.knowledge.path)
    if params.knowledge.hidden_states == "answer_last_layer":  # a row for each token of an answer
        layers = None
    return lambda name: layers if name in ("fewest_states", "most_states") else declared[name]
