"""Who stands before the gate: the candidates, and the champion in the registry."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clinprompt.contract.candidates import CandidateId
from clinprompt.evaluation.behaviour import Behaviour, Trial
from clinprompt.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Ability:
    """What a candidate can answer to at all. No answer of its own is in it, so that who may be the challenger can't
    depend on the test split.

    Attributes:
        not_novel: why it has no answers to the card's novel classes; None: it has, or the card names none.
    """

    not_novel: str | None


@dataclass(frozen=True)
class Candidate:
    """A listed candidate.

    `problem` says why it can't be judged, though it should be, and then `val` and `test` may be None; `not_trained` why
    it could not be trained, so that the others are judged without it.

    Attributes:
        method: its method's name, also where it was not trained; None: that of the candidate.
        novel, not_novel: its answers to the test images of the card's novel classes, or why it has none; both None
            where the card names no such classes.
        probe: tries it out, as it would be served, for what a rule asks; None: nobody can.
    """

    id: CandidateId
    model_digest: str | None
    val: Predictions | None
    test: Predictions | None
    problem: str | None = None
    not_trained: str | None = None
    method: str | None = None
    novel: Predictions | None = None
    not_novel: str | None = None
    probe: "Probe | None" = None

    @property
    def name(self) -> str:
        """The candidate's folder."""
        return str(self.id)

    @property
    def ability(self) -> Ability:
        """What it can answer to."""
        return Ability(self.not_novel)


Probe = Callable[[Candidate, Trial], Behaviour]


@dataclass(frozen=True)
class Incumbent:
    """The registry's champion; `problem` says why it has no predictions on the test images."""

    name: str
    version: str
    model_digest: str
    test: Predictions | None
    problem: str | None = None


@dataclass(frozen=True)
class Slices:
    """Parts of the test split.

    Attributes:
        masks: column -> value -> [n] the test images of it.
        unknown: the columns that were asked for and can't be sliced by, and why.
    """

    masks: dict[str, dict[str, NDArray[np.bool_]]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
