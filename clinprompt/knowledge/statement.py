"""What is judged, what it is judged against, and how: the parts that all families of checks share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from clinprompt.data.card import Card, ClassInfo
from clinprompt.knowledge.class_names import ClassNames
from clinprompt.knowledge.terms.of_card import Reading, TermsOfCard, read, terms_of
from clinprompt.knowledge.word_sets import WordSets
from clinprompt.knowledge.words import words_of


@dataclass(frozen=True)
class Statement:
    """A description about to be judged: its trimmed text, whether that is a whole sentence, and what was asked."""

    class_id: str
    question: str
    text: str
    complete: bool

    @cached_property
    def words(self) -> list[str]:
        """The text's words in lower case, without punctuation."""
        return words_of(self.text)

    @property
    def compared(self) -> frozenset[str]:
        """What makes two texts alike: their words."""
        return frozenset(self.words)


@dataclass(frozen=True)
class Context:
    """What a statement is judged against: the card's classes, the words that bear on the card, and of the texts
    accepted so far, by class, what is compared.

    Without `terms`, nothing that needs them is judged.
    """

    classes: Sequence[ClassInfo]
    accepted: dict[str, WordSets] = field(default_factory=dict)
    terms: TermsOfCard | None = None

    @cached_property
    def names(self) -> ClassNames:
        """The names of the classes."""
        return ClassNames(self.classes)

    @classmethod
    def of(cls, card: Card) -> "Context":
        """That of a card, with no text accepted yet.

        Raises:
            BadParams: a file of curated words is not as its schema says.
        """
        return cls(card.named, {}, terms_of(card))

    def read(self, statement: Statement) -> tuple[TermsOfCard, Reading] | None:
        """The words that bear on the card, and the statement's reading by them; None where they aren't given."""
        return None if self.terms is None else (self.terms, read(self.terms, statement.text))


@dataclass(frozen=True)
class DescriptionCheck:
    """A check: a score and the closed interval in which it is accepted; `name` is the reason given on rejection.

    A score of None says that the check can't judge this statement, which then passes it.
    """

    name: str
    score: Callable[[Statement, Context], float | None]
    low: float
    high: float

    def passes(self, score: float | None) -> bool:
        """Whether a score is accepted."""
        return score is None or self.low <= score <= self.high


@dataclass(frozen=True)
class Assessment:
    """The result of the checks: whether a description is accepted, the first check that it failed, and all scores;
    None is the score of what could not be judged.

    `review` says why a person should look at it, `reviewed` what a person has decided and why.
    """

    accepted: bool
    reason: str | None
    scores: dict[str, float | None]
    review: str | None = None
    reviewed: str | None = None

    @property
    def unjudged(self) -> tuple[str, ...]:
        """The checks that could not judge it."""
        return tuple(name for name, score in self.scores.items() if score is None)
