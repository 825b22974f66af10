"""The last word on descriptions that have been judged one by one: people's decisions, then what holds only among many.

In this order: decisions of people, duplicates by words, near-duplicates by sentence embeddings, contradictions, support
among samples.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clinprompt.knowledge.agreement.assertions import Assertion, assertions
from clinprompt.knowledge.agreement.consensus import consensus, opposed, outvoted_by_pairs
from clinprompt.knowledge.agreement.encoder import Encoder
from clinprompt.knowledge.agreement.nearness import cosines
from clinprompt.knowledge.agreement.nli import Nli
from clinprompt.knowledge.checks import CHECKS
from clinprompt.knowledge.form import DUPLICATE
from clinprompt.knowledge.review.decisions import Decision, Decisions, text_digest
from clinprompt.knowledge.statement import Assessment
from clinprompt.knowledge.word_sets import WordSets
from clinprompt.knowledge.words import words_of

NEAR_DUPLICATE, UNSUPPORTED, CONTRADICTION = "near_duplicate", "unsupported", "contradiction"
UNDECIDED, REVIEWED = "undecided", "reviewed"
# The scores that are added here. The largest cosine with a text accepted before for the class; how many samples assert
# what the text asserts; how many assert the opposite.
SCORES = (NEAR_DUPLICATE, "support", CONTRADICTION)
_NEAR = 0.02  # this close to the bound, a cosine is no sure sign
_COUNTS = {"wrong_modality", "wrong_organ", "invented", "other_class", "impossible", "sign_of_sibling", "denied"}


@dataclass(frozen=True)
class Sample:
    """A text of a class with what the checks have made of it."""

    class_id: str
    text: str
    verdict: Assessment


def settle(
    samples: Sequence[Sample],
    min_support: int = 1,
    encoder: Encoder | None = None,
    decisions: Decisions | None = None,
    nli: Nli | None = None,
) -> list[Assessment]:
    """The assessments of samples, in their order, with those of the scores `SCORES` that they can have, `review` and
    `reviewed`.

    Args:
        min_support: how many samples of the class, itself among them, must assert each thing that a text asserts.
        encoder: without one, near-duplicates are those that share most words.
        decisions: of people; they hold whatever any check says.
        nli: tells which samples contradict each other; without it their assertions do.
    """
    decided = [(decisions or {}).get((s.class_id, text_digest(s.text))) for s in samples]
    by_class: dict[str, list[int]] = defaultdict(list)
    for number, sample in enumerate(samples):
        by_class[sample.class_id].append(number)
    settled: list[Assessment] = [sample.verdict for sample in samples]
    for numbers in by_class.values():
        of_class = _OfClass(samples, numbers, [decided[number] for number in numbers])
        of_class.drop_duplicates()
        nearest = of_class.drop_near_duplicates(encoder)
        of_class.weigh(min_support, nli)
        for number in numbers:
            settled[number] = _with_review(of_class.verdicts[number], nearest.get(number), encoder)
    return settled


class _OfClass:
    """The samples of one class on their way; `verdicts` are by the samples' numbers."""

    def __init__(self, samples: Sequence[Sample], numbers: Sequence[int], decided: Sequence[Decision | None]) -> None:
        self.texts = {number: samples[number].text for number in numbers}
        self.verdicts = {
            number: _decided(samples[number].verdict, decision)
            for number, decision in zip(numbers, decided, strict=True)
        }
        self.certain = {n for n, d in zip(numbers, decided, strict=True) if d is not None and d.choice == "accepted"}
        voting = [number for number, verdict in self.verdicts.items() if verdict.accepted]
        self.asserted: dict[int, frozenset[Assertion]] = {number: assertions(self.texts[number]) for number in voting}
        self._drop_copies()

    def _drop_copies(self) -> None:
        """Of texts that are the same, the first stays, whoever has accepted them."""
        seen: set[str] = set()
        for number, verdict in self.verdicts.items():
            if verdict.accepted and self.texts[number] in seen:
                self._reject(number, DUPLICATE.name)
                verdict.scores[DUPLICATE.name] = 1.0
                self.certain.discard(number)
            seen |= {self.texts[number]} if verdict.accepted else set()

    def drop_duplicates(self) -> None:
        """Reject what shares most words with a text that stays; those that a person has accepted come first, and stay.

        Texts that assert opposite things are no duplicates, however near: one word sets "bright" and "dark" apart.
        """
        kept: list[int] = []
        sets = WordSets()
        for number in self._in_order():
            words = frozenset(words_of(self.texts[number]))
            row = sets.similarities(words)
            nearest = self._nearest(number, kept, row, row > DUPLICATE.high)
            self.verdicts[number].scores[DUPLICATE.name] = nearest
            if number in self.certain or DUPLICATE.passes(nearest):
                kept.append(number)
                sets.add(words)
            else:
                self._reject(number, DUPLICATE.name)

    def drop_near_duplicates(self, encoder: Encoder | None) -> dict[int, float]:
        """The same by sentence embeddings; of each text that was compared, the largest cosine."""
        order = np.array(self._in_order())
        if encoder is None or not len(order):
            return {}
        kept = np.zeros(len(order), bool)
        nearest: dict[int, float] = {}
        for i, row in cosines(encoder.encode([self.texts[int(number)] for number in order])):
            number = int(order[i])
            of_kept = row[kept[:i]]
            nearest[number] = round(self._nearest(number, order[:i][kept[:i]], of_kept, of_kept >= encoder.same), 6)
            kept[i] = number in self.certain or nearest[number] < encoder.same
            if not kept[i]:
                self._reject(number, NEAR_DUPLICATE)
            self.verdicts[number].scores[NEAR_DUPLICATE] = nearest[number]
        return nearest

    def _in_order(self) -> list[int]:
        """The accepted, in the order in which duplicates are looked for."""
        accepted = [number for number, verdict in self.verdicts.items() if verdict.accepted]
        return sorted(accepted, key=lambda number: (number not in self.certain, number))

    def _nearest(self, number: int, others: Sequence[int] | np.ndarray, row: np.ndarray, near: np.ndarray) -> float:
        """The largest similarity with others; of the `near` ones, with those only that assert nothing opposite."""
        for j in np.flatnonzero(near)[np.argsort(-row[near], kind="stable")]:
            if not opposed(self.asserted[number], self.asserted[int(others[j])]):
                return float(row[j])
        return float(row[~near].max(initial=0))

    def weigh(self, min_support: int, nli: Nli | None) -> None:
        """Reject what too few samples support, what is outvoted, and hold back what is undecided."""
        candidates = [number for number, verdict in self.verdicts.items() if verdict.accepted]
        found = consensus(self.asserted, candidates, self.certain)
        if nli is not None:
            opposite = nli.contradictions({number: self.texts[number] for number in self.asserted})
            found = outvoted_by_pairs(found, opposite, candidates, self.certain)
        for number in self.asserted:
            if (support := found.support[number]) is not None:
                self.verdicts[number].scores["support"] = float(support)
            if support is not None or nli is not None:
                self.verdicts[number].scores[CONTRADICTION] = float(found.against[number])
        for number in candidates:
            support = found.support[number]
            if number in self.certain:
                continue
            if number in found.outvoted:
                self._reject(number, CONTRADICTION)
            elif number in found.undecided:
                self._reject(number, UNDECIDED)
            elif support is not None and support < min_support:
                self._reject(number, UNSUPPORTED)

    def _reject(self, number: int, reason: str) -> None:
        self.verdicts[number] = replace(self.verdicts[number], accepted=False, reason=reason)


def _decided(verdict: Assessment, decision: Decision | None) -> Assessment:
    """A verdict whose scores can be added to, and with a person's decision in place of the checks'.

    A duplicate, which has passed every other check, is looked at anew, as what it was held against may not stay.
    """
    verdict = replace(verdict, scores=dict(verdict.scores))
    if verdict.reason == DUPLICATE.name:
        verdict = replace(verdict, accepted=True, reason=None)
    if decision is None:
        return verdict
    reason = None if decision.choice == "accepted" else REVIEWED
    return replace(verdict, accepted=reason is None, reason=reason, reviewed=decision.told)


def _with_review(verdict: Assessment, nearest: float | None, encoder: Encoder | None) -> Assessment:
    """A verdict with why a person should look at it; nothing where one has."""
    return verdict if verdict.reviewed else replace(verdict, review=_doubt(verdict, nearest, encoder))


def _doubt(verdict: Assessment, nearest: float | None, encoder: Encoder | None) -> str | None:
    if verdict.reason == UNDECIDED:
        return "as many samples say the opposite"
    if verdict.reason == CONTRADICTION and verdict.scores[CONTRADICTION] == 1:
        return "one other sample says the opposite"
    if encoder is not None and nearest is not None and abs(nearest - encoder.same) <= _NEAR:
        return "nearly the same as another text, or just not"
    failed = _failed(verdict)
    if failed and failed <= _COUNTS and sum(verdict.scores[name] or 0 for name in failed) == 1:
        return "rejected for one word"
    return "not judged by every check" if verdict.accepted and verdict.unjudged else None


def _failed(verdict: Assessment) -> set[str]:
    return {check.name for check in CHECKS if not check.passes(verdict.scores[check.name])}
