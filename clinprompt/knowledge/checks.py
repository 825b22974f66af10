"""The checks that accept or reject a description: each one scores it, and the score must lie within bounds.

To add a check, write a function from a statement and its context to a number and add it to `CHECKS`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clinprompt.data.card import ClassInfo
from clinprompt.knowledge.words import FUNCTION_WORDS, NO_MENTIONS, words_of

_REFUSALS = (
    "as an ai",
    "as a language model",
    "i am an ai",
    "i am not able",
    "i can not",
    "i cannot",
    "i can t",
    "i do not have",
    "i don t have",
    "i m not able",
    "i m sorry",
    "i am sorry",
    "unable to provide",
    "consult a doctor",
    "consult your doctor",
    "medical advice",
)
_ABBREVIATIONS = ("e.g.", "i.e.", "approx.", "cf.", "vs.", "fig.", "dr.", "etc.", "no.", "st.")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?(?=\s|$)")


@dataclass(frozen=True)
class Statement:
    """A description about to be judged: its trimmed text, whether that is a whole sentence, and what was asked."""

    class_id: str
    question: str
    text: str
    complete: bool

    @property
    def words(self) -> list[str]:
        """The text's words in lower case, without punctuation."""
        return words_of(self.text)

    @property
    def compared(self) -> frozenset[str]:
        """What makes two texts alike: their words."""
        return frozenset(self.words)


@dataclass(frozen=True)
class Context:
    """What a statement is judged against: the card's classes, and of the texts accepted so far, by class, what is
    compared."""

    classes: Sequence[ClassInfo]
    accepted: dict[str, list[frozenset[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class DescriptionCheck:
    """A check: a score and the closed interval in which it is accepted; `name` is the reason given on rejection."""

    name: str
    score: Callable[[Statement, Context], float]
    low: float
    high: float


@dataclass(frozen=True)
class Assessment:
    """The result of the checks: whether a description is accepted, the first check that it failed, and all scores."""

    accepted: bool
    reason: str | None
    scores: dict[str, float]


def first_sentence(text: str, ended: bool) -> tuple[str, bool]:
    """The first sentence of the first line, and whether it is whole.

    Args:
        ended: the model ended by itself; then a missing full stop is added instead of held against it.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"\s+", " ", line)
    for match in _SENTENCE_END.finditer(line):
        if not line[: match.end()].casefold().endswith(_ABBREVIATIONS):
            return line[: match.end()], True
    if ended and line and line == text.strip() and line[-1].isalnum():
        return f"{line}.", True
    return line, False


def has_sentence(text: str) -> bool:
    """Whether the text goes on after its first sentence or line, so that `first_sentence` needs no more of it."""
    line, newline, _ = text.partition("\n")
    sentence, whole = first_sentence(line, ended=False)
    return bool(newline) or (whole and len(sentence) < len(line.lstrip()))


def judge(statement: Statement, context: Context, checks: "Sequence[DescriptionCheck] | None" = None) -> Assessment:
    """Score a statement by every check, by default those of descriptions, and remember it in the context when it is
    accepted."""
    checks = CHECKS if checks is None else checks
    scores = {check.name: check.score(statement, context) for check in checks}
    reason = next((check.name for check in checks if not check.low <= scores[check.name] <= check.high), None)
    if reason is None:
        context.accepted.setdefault(statement.class_id, []).append(statement.compared)
    return Assessment(reason is None, reason, scores)


def whole(statement: Statement, context: Context) -> float:
    """1 for a whole sentence, 0 for one that was cut off."""
    return float(statement.complete)


def word_count(statement: Statement, context: Context) -> float:
    """The number of words."""
    return float(len(statement.words))


def english(statement: Statement, context: Context) -> float:
    """The share of English function words; 0 as soon as more than one word in twenty has letters beyond ASCII.

    English prose lies between 0.3 and 0.6, lists of terms below 0.2, other languages near 0.
    """
    words = statement.words
    foreign = sum(not word.isascii() for word in words)
    if not words or foreign > len(words) / 20:
        return 0.0
    return sum(word in FUNCTION_WORDS for word in words) / len(words)


def echo(statement: Statement, context: Context) -> float:
    """The share of the text's four-word sequences that the question holds too."""
    question_ngrams, ngrams = set(_ngrams(words_of(statement.question), 4)), _ngrams(statement.words, 4)
    return sum(ngram in question_ngrams for ngram in ngrams) / len(ngrams) if ngrams else 0.0


def refusals(statement: Statement, context: Context) -> float:
    """How many of the phrases with which models decline, or speak of themselves, the text holds."""
    text = f" {' '.join(statement.words)} "
    return float(sum(f" {phrase} " in text for phrase in _REFUSALS))


def repetition(statement: Statement, context: Context) -> float:
    """The share of repeated word pairs; 1 when a word follows itself."""
    bigrams = _ngrams(statement.words, 2)
    if any(first == second for first, second in bigrams):
        return 1.0
    return 1 - len(set(bigrams)) / len(bigrams) if bigrams else 0.0


def other_classes(statement: Statement, context: Context) -> float:
    """How many other classes of the card the text names.

    Of overlapping names the longest counts: "pituitary tumour" is not a mention of a class "tumour". Nor is a name a
    mention that stands in the name or the phrase of the class itself: where that is "pituitary tumour", it is what
    "the tumour" means.
    """
    text = " ".join(statement.words)
    own = [info for info in context.classes if info.id == statement.class_id]
    own_texts = [_plain(words) for info in own for words in (info.name, info.phrase, info.id)]
    names = [(name, class_info.id) for class_info in context.classes for name in _names(class_info)]
    mentioned = set()
    for name, class_id in sorted(names, key=lambda pair: (-len(pair[0]), pair)):
        pattern = re.compile(rf"\b{re.escape(name)}s?\b")
        if pattern.search(text):
            if not any(pattern.search(own_text) for own_text in own_texts):
                mentioned.add(class_id)
            text = pattern.sub("|", text)
    return float(len(mentioned - {statement.class_id}))


def similarity(statement: Statement, context: Context) -> float:
    """The largest Jaccard index of the text's words with those of a text accepted before, for the same class."""
    words = statement.compared
    earlier = context.accepted.get(statement.class_id, [])
    return max((len(words & other) / len(words | other) for other in earlier if words | other), default=0.0)


CHECKS: tuple[DescriptionCheck, ...] = (
    DescriptionCheck("unfinished", whole, 1, 1),
    DescriptionCheck("length", word_count, 8, 50),
    DescriptionCheck("language", english, 0.2, 1),
    DescriptionCheck("refusal", refusals, 0, 0),
    DescriptionCheck("echo", echo, 0, 0.6),
    DescriptionCheck("repetition", repetition, 0, 0.2),
    DescriptionCheck("other_class", other_classes, 0, 0),
    DescriptionCheck("duplicate", similarity, 0, 0.8),
)


def _names(class_info: ClassInfo) -> set[str]:
    """The names by which a text may mention the class: its name and id, but not aliases, which can be "0" or "no", and
    no number, single letter or ordinary English word."""
    names = {_plain(name) for name in (class_info.name, class_info.id)}
    return {name for name in names if not set(name.split()) <= NO_MENTIONS and not re.fullmatch(r"[\d ]*|\w", name)}


def _plain(text: str) -> str:
    """The text's words, as `words_of` gives them, with single blanks between them; "_" parts words too."""
    return " ".join(words_of(text.replace("_", " ")))


def _ngrams(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
