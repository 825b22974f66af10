"""Paraphrases of the sentence that reports are made of: sampled, judged, and sampled again while too few are accepted.

The language model reads the frame, which holds placeholders and no patient's facts; those are filled in elsewhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinprompt.data.card import Card
from clinprompt.knowledge.asking import Writer, complete_samples
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.completion import Completion, Sampling
from clinprompt.knowledge.description import Description, Origin, Prompt
from clinprompt.knowledge.form import first_sentence, has_sentence
from clinprompt.knowledge.generate import ROUNDS, TOP_P, origin_of
from clinprompt.knowledge.paraphrase_checks import Paraphrase, paraphrase_checks
from clinprompt.knowledge.prompts import prompt_of
from clinprompt.knowledge.samples import Samples
from clinprompt.knowledge.statement import Context, DescriptionCheck
from clinprompt.knowledge.subject import plain
from clinprompt.knowledge.word_sets import WordSets
from clinprompt.knowledge_params import KnowledgeParams
from clinprompt.reports.frame import OF_NO_CLASS, PLACEHOLDER, Frame, Slot

QUESTION = "Rewrite this sentence in other words. Keep every word in braces as it is: {}"
# The words with which the sentence must begin, and how they tell the first measures: so a small model sees how names
# and placeholders go together.
OPENINGS: dict[str, tuple[str, str]] = {
    "report_shows": ("The {modality} shows {label} in a subject of {age} and {sex}, with", " {name} {value},"),
    "report_subject": ("In a subject of {age} and {sex}, the {modality} shows {label}:", " the {name} is {value},"),
    "report_measured": ("This {modality} is of {label} with {age} and {sex}, where", " {name} is {value},"),
}
_TOLD = 2  # measures in an opening, where there are more
_GOES_ON = re.compile(r"\s*(?:[,;]|and\b)")


@dataclass(frozen=True)
class Paraphrased:
    """The paraphrases of a frame, accepted or not, in the order of judging, and how they were made and judged."""

    frame: Frame
    paraphrases: tuple[Description, ...]
    sampling: Sampling

    @property
    def checks(self) -> tuple[DescriptionCheck, ...]:
        """What each was held against."""
        return paraphrase_checks(self.frame)

    @property
    def accepted(self) -> int:
        """How many were accepted."""
        return sum(one.verdict.accepted for one in self.paraphrases)


def paraphrase(
    writer: Writer, card: Card, frame: Frame, params: KnowledgeParams, kept: Samples | None = None
) -> Paraphrased:
    """Generate and judge paraphrases of a frame, in the order of rounds, openings and indices.

    Up to four rounds of `paraphrases_per_opening` samples, until `min_accepted_paraphrases` are accepted. A sample
    depends on the seed, its opening and index, the model and the prompt. A list of measures that goes on behind the
    last one is ended there. Samples that are `kept` are not made again.

    Raises:
        BadParams: a measure's name can't stand in a prompt.
        ServiceDown: the endpoint does not answer.
    """
    for text in (frame.modality, frame.organ, *(name for slot in frame.slots for name in slot.names)):
        plain(text, card.name, "record")
    prompts = [_prompt(writer, frame, aspect) for aspect in OPENINGS]
    statement = Paraphrase(OF_NO_CLASS, frame.sentence, frame.sentence, complete=True)
    context = Context(card.named, {OF_NO_CLASS: WordSets([statement.compared])})  # a copy of the frame is none, too
    # As long as twice the frame, whatever descriptions may be.
    sampling = Sampling(params.temperature, TOP_P, 2 * writer.length_of(frame.sentence))

    def enough(text: str) -> bool:
        return _enough(text, frame)

    made: list[Description] = []
    for number in range(ROUNDS):
        if number and sum(one.verdict.accepted for one in made) >= params.min_accepted_paraphrases:
            break
        first = number * params.paraphrases_per_opening
        samples = [(prompt, first + k) for prompt in prompts for k in range(params.paraphrases_per_opening)]
        label = "Paraphrasing reports" + (f" again, round {number + 1}" if number else "")
        completions = complete_samples(writer, samples, params, sampling, label, enough, kept)
        for (prompt, index), completion in zip(samples, completions, strict=True):
            made.append(_judge(prompt, index, number, completion, frame, context, origin_of(writer, completion)))
    return Paraphrased(frame, tuple(made), sampling)


def _prompt(writer: Writer, frame: Frame, aspect: str) -> Prompt:
    (head, clause), (label, age, sex) = OPENINGS[aspect], frame.slots[:3]
    opening = head.format(modality=frame.modality, label=label.placeholder, age=age.named, sex=sex.named)
    opening += "".join(clause.format(name=slot.names[0], value=slot.placeholder) for slot in _opened(frame))
    return prompt_of(writer, OF_NO_CLASS, aspect, QUESTION.format(frame.sentence), opening)


def _opened(frame: Frame) -> Sequence[Slot]:
    return frame.measures[: min(_TOLD, len(frame.measures) - 1)]


def _judge(
    prompt: Prompt,
    index: int,
    number: int,
    completion: Completion,
    frame: Frame,
    context: Context,
    origin: Origin,
) -> Description:
    raw = prompt.opening + completion.text
    text, whole = first_sentence(raw, completion.ended)
    end = _list_end(text, {slot.key for slot in frame.slots})
    if end is not None:
        text, whole = f"{text[:end]}.", True
    verdict = judge(Paraphrase(OF_NO_CLASS, prompt.question, text, whole), context, paraphrase_checks(frame))
    return Description(prompt, index, number, raw, text, verdict, origin)


def _enough(text: str, frame: Frame) -> bool:
    """Whether a completion needs no more: its sentence has ended, or goes on after the last measure."""
    missing = {slot.key for slot in frame.measures} - {slot.key for slot in _opened(frame)}
    return has_sentence(text) or _list_end(text, missing) is not None


def _list_end(text: str, keys: set[str]) -> int | None:
    """Where the last of the placeholders ends, if more of a list follows; None: it doesn't."""
    missing = set(keys)
    for found in PLACEHOLDER.finditer(text):
        missing.discard(found[1])
        if not missing:
            return found.end() if _GOES_ON.match(text, found.end()) else None
    return None
