"""What a sentence asserts on the axes of `terms/opposites.yaml`: how bright, how sharp, on how many sides."""

from collections.abc import Sequence
from dataclasses import dataclass

from clinprompt.knowledge.scopes import clauses, scopes_in
from clinprompt.knowledge.terms.lexicon import Found
from clinprompt.knowledge.terms.opposites import Axis, axis_lexicon, opposites, part_lexicon, sequence_lexicon

_PERHAPS = {"can", "may", "might", "could", "sometime", "occasionally", "rarely", "possibly", "perhaps", "if"}
_NEXT = {"and", "but", "while", "whereas", "with", "or"}  # what follows one of these is another part
_REACH = 5  # words before a term in which it is only held possible, or behind it in which its part is named


@dataclass(frozen=True, order=True)
class Assertion:
    """One way on an axis, of a part ("" for the whole) and in a sequence ("" where none is named)."""

    axis: str
    part: str
    sequence: str
    way: str

    @property
    def subject(self) -> tuple[str, str, str]:
        """What it is said of: two assertions of one subject and different ways contradict each other."""
        return self.axis, self.part, self.sequence


def assertions(text: str) -> frozenset[Assertion]:
    """What a sentence asserts. It asserts nothing of a subject of which it says two ways, or one that only may be."""
    words, begins = clauses(text)
    sequences = sequence_lexicon().find(words)
    taken = {i for found in sequences for i in range(found.start, found.stop)}
    said = scopes_in(words, begins)
    made: set[Assertion] = set()
    for name, axis in opposites().axes.items():
        found = [one for one in axis_lexicon(name).find(words) if one.start not in taken]
        placed = _sequences(found, sequences) if axis.sequences else {}
        for one in found:
            if said.compared[one.start] or _only_perhaps(words, begins, one):
                continue
            part = _part(words, begins, one, axis)
            for way in _ways(axis, one, said.denied[one.start]):
                made |= {Assertion(name, part, sequence, way) for sequence in placed.get(one.start, {""})}
    ways: dict[tuple[str, str, str], set[str]] = {}
    for assertion in made:
        ways.setdefault(assertion.subject, set()).add(assertion.way)
    return frozenset(assertion for assertion in made if len(ways[assertion.subject]) == 1)


def _ways(axis: Axis, found: Found[str], denied: bool) -> set[str]:
    """The ways that a term stands for; denied, the other one of two, and nothing where there are more."""
    if not denied:
        return set(found.owners)
    return set(axis.ways) - found.owners if len(axis.ways) == 2 else set()


def _only_perhaps(words: Sequence[str], begins: Sequence[bool], found: Found[str]) -> bool:
    start = found.start
    while start > max(0, found.start - _REACH) and not begins[start]:
        start -= 1
    return bool(_PERHAPS & set(words[start : found.start]))


def _part(words: list[str], begins: list[bool], found: Found[str], axis: Axis) -> str:
    """The part that a term speaks of, as its clause names it: "bright rim", or else "the rim is bright"."""
    if axis.parts is None:
        return ""
    first, last = found.start, found.stop
    while first > 0 and not begins[first]:
        first -= 1
    while last < len(words) and not begins[last]:
        last += 1
    named = part_lexicon(axis.parts).find(words[first:last])
    end = next((i for i in range(found.stop, last) if words[i] in _NEXT), last)
    behind = [one for one in named if found.start <= one.start + first < min(end, found.stop + _REACH)]
    before = [one for one in named if one.start + first < found.start]
    nearest = behind[:1] or before[-1:]
    return min(nearest[0].owners) if nearest else ""


def _sequences(found: Sequence[Found[str]], sequences: Sequence[Found[str]]) -> dict[int, set[str]]:
    """Of each term, by its first word, the sequences that it is said of.

    A sequence goes with the nearest term of the axis, of two as near with the earlier one; a term that none goes with,
    with the last sequence before it.
    """
    placed: dict[int, set[str]] = {}
    for sequence in sequences:
        if found:
            nearest = min(found, key=lambda one: (abs(one.start - sequence.start), one.start))
            placed.setdefault(nearest.start, set()).update(sequence.owners)
    for one in found:
        earlier = [sequence for sequence in sequences if sequence.start < one.start]
        if one.start not in placed and earlier:
            placed[one.start] = set(earlier[-1].owners)
    return placed
