"""The checks that accept or reject a paraphrase of a report's frame.

It is filled with facts of patients, so that it must hold each placeholder at its place and no fact of its own.
"""

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from clinprompt.knowledge.form import similarity, whole
from clinprompt.knowledge.mentions import class_mentions
from clinprompt.knowledge.statement import Context, DescriptionCheck, Statement
from clinprompt.knowledge.words import FUNCTION_WORDS, unseen, words_of
from clinprompt.reports.frame import PLACEHOLDER, Frame

# Function words with which a sentence says something of its own.
_CLAIMS = frozenset(
    words_of("above all also below from inside into like may more most near no not often out outside over some than")
    + words_of("under usually very without but can or other")
)
# What a report may say beside the frame's own words: nothing that could be found in a subject, and no disease.
_REPORT_WORDS = frozenset(
    words_of(
        "acquired being belonging belongs case described diagnosed diagnosis exam examination examined following gave "
        "given gives had having image images imaging individual labeled labelled listed lists measure measured "
        "measurement measurements measures obtained patient person photo picture presented presents read reading reads "
        "recorded records report reported reports s scan scanned scans seen show showing shown shows stated study "
        "subject taken tells value values volume volumes who whose"
    )
)


@dataclass(frozen=True)
class Paraphrase(Statement):
    """A paraphrase about to be judged; two are compared by the pairs of words that follow each other."""

    @property
    def compared(self) -> frozenset[str]:
        """The pairs."""
        words = self.words
        return frozenset(" ".join(pair) for pair in pairwise(words))


def paraphrase_checks(frame: Frame) -> tuple[DescriptionCheck, ...]:
    """The checks of paraphrases of a frame, in the order in which they give the reason."""
    modality = set(words_of(frame.modality))

    def placeholders(statement: Statement, context: Context) -> float:
        """How many placeholders don't stand there exactly once, how many braces belong to none, and how many characters
        can't be seen."""
        found = PLACEHOLDER.findall(statement.text)
        keys = [slot.key for slot in frame.slots]
        rest = PLACEHOLDER.sub(lambda match: "" if match[1] in keys else match[0], statement.text)
        return float(sum(found.count(key) != 1 for key in keys) + len(re.findall(r"[{}\[\]<>]", rest)) + unseen(rest))

    def swapped(statement: Statement, context: Context) -> float:
        """How many names and placeholders don't stand as the frame has them, a name before its own placeholder."""
        return float(_out_of_place(statement.text, frame))

    def numbers(statement: Statement, context: Context) -> float:
        """How many words with a digit the text holds outside of placeholders and names, but for the modality's."""
        words = _own_words(statement.text, frame)
        return float(sum(any(map(str.isdigit, word)) and word not in modality for word in words))

    def classes(statement: Statement, context: Context) -> float:
        """How many classes of the card the text names."""
        own = replace(statement, text=" ".join(_own_words(statement.text, frame)))
        return float(len({class_id for class_id, _ in class_mentions(own, context)}))

    def strangers(statement: Statement, context: Context) -> float:
        """How many words are neither the frame's nor known to say nothing of a subject: diseases, findings, units."""
        known = (FUNCTION_WORDS - _CLAIMS) | _REPORT_WORDS | modality | set(words_of(frame.organ))
        return float(sum(word not in known for word in _own_words(statement.text, frame)))

    def length(statement: Statement, context: Context) -> float:
        """Its words, as a multiple of the frame's."""
        return len(statement.words) / len(words_of(frame.sentence))

    return (
        DescriptionCheck("unfinished", whole, 1, 1),
        DescriptionCheck("placeholders", placeholders, 0, 0),
        DescriptionCheck("swapped", swapped, 0, 0),
        DescriptionCheck("number", numbers, 0, 0),
        DescriptionCheck("other_class", classes, 0, 0),
        DescriptionCheck("other_word", strangers, 0, 0),
        DescriptionCheck("length", length, 0.5, 2),
        DescriptionCheck("duplicate", similarity, 0, 0.8),
    )


def _own_words(text: str, frame: Frame) -> list[str]:
    """The words that are neither placeholders nor names of facts."""
    return words_of(_pattern(frame).sub(" ", text.casefold()))


def _out_of_place(text: str, frame: Frame) -> int:
    owners = {" ".join(name.casefold().split()): slot.key for slot in frame.slots for name in slot.names}
    named = {slot.key for slot in frame.slots if slot.names}
    wrong, waiting = 0, None
    for event in _pattern(frame).findall(text.casefold()):
        key = event[1:-1] if event.startswith("{") else None
        if key is None:  # a name, whose value must come next
            wrong += waiting is not None
            waiting = owners[re.sub(r"\s+", " ", event)]
        elif key in named:
            wrong += key != waiting
            waiting = None
        else:
            wrong += waiting is not None
    return wrong + (waiting is not None)


def _pattern(frame: Frame) -> re.Pattern[str]:
    """Placeholders and names, in lower case; of overlapping names the longest counts."""
    names = {name.casefold() for slot in frame.slots for name in slot.names}
    spelled = [r"\s+".join(map(re.escape, name.split())) for name in sorted(names, key=lambda n: (-len(n), n))]
    return re.compile(rf"\{{\w+\}}|(?<!\w)(?:{'|'.join(spelled)})(?!\w)")
