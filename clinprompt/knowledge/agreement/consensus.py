"""Support and contradiction: what the samples of one class say alike, and where they say opposite things."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from clinprompt.knowledge.agreement.assertions import Assertion


@dataclass(frozen=True)
class Consensus:
    """What the samples of one class make of each other, by their numbers.

    Attributes:
        support: how many samples assert the least shared of a sample's assertions, itself among them; None without any.
        against: how many samples assert the opposite of what a sample asserts, at most for one of its assertions.
        outvoted: samples that assert what more samples of the class deny.
        undecided: samples that assert what as many deny.
    """

    support: dict[int, int | None]
    against: dict[int, int]
    outvoted: frozenset[int]
    undecided: frozenset[int]


def consensus(
    samples: Mapping[int, frozenset[Assertion]], candidates: Collection[int], certain: Collection[int] = ()
) -> Consensus:
    """Compare the samples of one class.

    Every sample has a vote on every assertion of its own, also one that is no candidate, as it says again what another
    says: agreement of independent samples is what is counted (as self-consistency does: Wang et al., ICLR 2023). Of the
    ways that exclude each other of one subject, the one with most votes stays. All subjects are judged at once, so that
    no order matters.

    Args:
        samples: of each sample its assertions.
        candidates: the samples that can be rejected.
        certain: those that a person has accepted: their ways win over all others', and they are never rejected.
    """
    rejectable = set(candidates) - set(certain)
    votes = Counter(assertion for made in samples.values() for assertion in made)
    of_certain = {assertion for number in certain for assertion in samples.get(number, ())}
    of_subject = Counter(assertion.subject for made in samples.values() for assertion in made)
    opposite = {assertion: of_subject[assertion.subject] - votes[assertion] for assertion in votes}
    lost, tied = _decided(votes, of_certain)
    weighed = [number for number in samples if number in rejectable]
    outvoted = frozenset(number for number in weighed if samples[number] & lost)
    return Consensus(
        support={number: min((votes[one] for one in made), default=None) for number, made in samples.items()},
        against={number: max((opposite[one] for one in made), default=0) for number, made in samples.items()},
        outvoted=outvoted,
        undecided=frozenset(number for number in weighed if samples[number] & tied) - outvoted,
    )


def outvoted_by_pairs(
    found: Consensus,
    opposite: Mapping[int, Collection[int]],
    candidates: Collection[int],
    certain: Collection[int] = (),
) -> Consensus:
    """The same support, with contradictions by pairs of samples in place of those by assertions.

    Of two samples that contradict each other, the one that more samples contradict is outvoted; as many: both are
    undecided. All pairs are judged at once, so that no order matters.

    Args:
        opposite: of each sample the samples that contradict it; symmetric.
        candidates, certain: as in `consensus`.
    """
    against = {number: len(others) for number, others in opposite.items()}
    strength = {number: (number in certain, -against[number]) for number in opposite}
    rejectable = [number for number in opposite if number in set(candidates) - set(certain)]
    outvoted = {n for n in rejectable if any(strength[other] > strength[n] for other in opposite[n])}
    tied = {n for n in rejectable if any(strength[other] == strength[n] for other in opposite[n])}
    return replace(found, against=against, outvoted=frozenset(outvoted), undecided=frozenset(tied - outvoted))


def _decided(votes: Mapping[Assertion, int], certain: Collection[Assertion]) -> tuple[set[Assertion], set[Assertion]]:
    """The assertions that lose against an opposite one, and those that are as strong as an opposite one."""
    subjects: dict[tuple[str, str, str], list[Assertion]] = {}
    for assertion in sorted(votes):
        subjects.setdefault(assertion.subject, []).append(assertion)
    lost: set[Assertion] = set()
    tied: set[Assertion] = set()
    for ways in (ways for ways in subjects.values() if len(ways) > 1):
        strength = {way: (way in certain, 0 if way in certain else votes[way]) for way in ways}
        strongest = [way for way in ways if strength[way] == max(strength.values())]
        lost |= set(ways) - set(strongest)
        tied |= set(strongest) if len(strongest) > 1 else set()
    return lost, tied


def opposed(first: frozenset[Assertion], second: frozenset[Assertion]) -> bool:
    """Whether two sentences assert different ways of one subject."""
    ways = {assertion.subject: assertion.way for assertion in first}
    return any(ways.get(assertion.subject, assertion.way) != assertion.way for assertion in second)
