"""What has to be there before anything is generated: who can say what the methods read."""

from collections.abc import Collection

from clinprompt.data.card import Card
from clinprompt.knowledge_params import KnowledgeParams

_WITHOUT = {
    "hidden_states": (
        "hidden states come from a language model that runs here; name one in knowledge.llm, or take out what reads "
        "them (cilmp)"
    ),
    "descriptions": (
        "the card names no file of reviewed descriptions (knowledge.descriptions) either; add one, or name a language "
        "model in knowledge.llm or knowledge.endpoint"
    ),
    "paraphrases": "reports are paraphrased by a language model; name one (knowledge.llm), or set phrasings: varied",
}


def with_sources(kinds: Collection[str], params: KnowledgeParams) -> set[str]:
    """These kinds, and the descriptions where hidden states are of them."""
    of_descriptions = "hidden_states" in kinds and params.states_of == "descriptions"
    return {*kinds, "descriptions"} if of_descriptions else set(kinds)


def unmet(kinds: Collection[str], card: Card, params: KnowledgeParams) -> str | None:
    """Why some of "descriptions", "hidden_states" and "paraphrases" can't be had for a card; None where they can."""
    if params.llm is not None:
        return None
    if "hidden_states" in kinds:
        lacking = "hidden_states"
    elif params.endpoint is not None:
        return None
    elif "descriptions" in kinds and card.knowledge.descriptions is None:
        lacking = "descriptions"
    elif "paraphrases" in kinds:
        lacking = "paraphrases"
    else:
        return None
    return f"params.yaml: knowledge.llm: null names no language model, but {_WITHOUT[lacking]}."
