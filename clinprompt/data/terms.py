"""What a card tells of its classes' descriptions: a file of reviewed ones, and words beyond the curated ones of
`clinprompt/knowledge/terms`."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from clinprompt.schema import Fraction, Name, Section


def _term(term: str) -> str:
    if not re.search(r"\w", term) or re.search(r"\*\S|(?<!\w)\*", term):
        raise ValueError(f"{term!r} is no term: words, of which any may end in '*'")
    if any(len(word) < 4 for word in term.split() if word.endswith("*")):
        raise ValueError(f"{term!r}: at least three letters must stand before '*'")
    return term


Term = Annotated[str, AfterValidator(_term)]  # "*" at the end of a word stands for any ending


class ClassTerms(Section):
    """Words of a class: names, what is typical (`signs`) and essential (`core`), and what it can't show (`never`)."""

    names: list[Term] = []
    signs: list[Term] = []
    core: list[Term] = []
    never: list[Term] = []


class CardTerms(Section):
    """Words that fit the modality or the organ, whatever others they are of, and those of classes, by id."""

    modality: list[Term] = []
    organ: list[Term] = []
    classes: dict[Name, ClassTerms] = {}


class KnowledgeSection(Section):
    """The section `knowledge` of a card.

    `descriptions` is a CSV beside the card with sentences that a clinician has written or approved: no language model
    is asked for descriptions then. `decisions` is another with what people have decided on descriptions.
    `rejected_share` is the share of rejected ones when they were released last, against which a jump is seen.
    """

    descriptions: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.csv$")] | None = None

    terms: CardTerms = CardTerms()
    decisions: Name | None = None
    rejected_share: Fraction | None = None
