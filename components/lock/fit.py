"""Whether the candidates fit the backbone and the language model, asked before anything slow runs.

From what files declare: nothing is loaded, and what no file tells is found out where a candidate is tuned.
"""

from collections.abc import Mapping, Sequence

from clinprompt.backbones.sizes import declared_sizes
from clinprompt.contract.params_schema import knob_defaults, knowledge_of, limits_of
from clinprompt.data.card import Card
from clinprompt.errors import BadParams
from clinprompt.knowledge.table import declared_layers
from clinprompt.limits import Limit, Sizes, problems
from clinprompt.params import Params


def check_candidates(params: Params, cards: Sequence[Card]) -> None:
    """Hold every candidate's knobs on every dataset against the limits of its method.

    Raises:
        BadParams: some break a limit, or there is no such backbone or language model; all are told at once.
    """
    sizes = _sizes(params)
    datasets: dict[str, list[str]] = {}  # by what is wrong
    for name in params.candidates.names:
        spec = params.candidate(name)
        limits = [Limit(**limit) for limit in limits_of(spec.method)]
        for card in cards:
            own = card.knobs(spec.method)
            knobs = knob_defaults(spec.method) | spec.knobs | own.get(f"methods.{spec.method}", {}) | spec.variant
            for problem in problems(limits, knobs, sizes):
                datasets.setdefault(f"{name}: {problem}", []).append(card.name)
    if datasets:
        told = [f"{problem}{_where(names, cards)}" for problem, names in datasets.items()]
        raise BadParams(
            f"params.yaml: candidates that can't be trained with the backbone {params.backbone.name}: "
            f"{'; '.join(told)}. Change these knobs, or take the candidates out."
        )


def _where(datasets: Sequence[str], cards: Sequence[Card]) -> str:
    return "" if len(datasets) == len(cards) else f" (on {', '.join(datasets)})"


def _sizes(params: Params) -> Sizes:
    declared: Mapping[str, int | None] = declared_sizes(params.backbone.name, params.backbone.path).model_dump()
    layers = None
    if any(knowledge_of(params.candidates.method_of(name)) for name in params.candidates.taught):
        layers = declared_layers(params.knowledge.llm, params.knowledge.path)
    if params.knowledge.hidden_states == "answer_last_layer":  # a row for each token of an answer
        layers = None
    return lambda name: layers if name in ("fewest_states", "most_states") else declared[name]
