"""`decision.json`: the gate's record. Imports nothing heavy: on most runs the gate only finds that it still holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from clinprompt.contract.candidates import CandidateId
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.behaviour import Behaviour
from clinprompt.evaluation.budget import HeldOut
from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.recorded_check import RecordedCheck
from clinprompt.records import Record, RecordPart


class ChampionRef(RecordPart):
    """Which registry version a decision was made against."""

    name: str
    version: str
    model_digest: str


class ChosenCandidate(RecordPart):
    """The candidate that may become the champion; `folder` is that of its tuned model."""

    candidate: str
    method: str
    seed: int
    folder: str
    model_digest: str


class CrossCheck(RecordPart):
    """A classical test of challenger and champion, told beside the rules: the difference that it is about, and its
    two-sided p; None where it is not defined."""

    test: str
    says: str
    difference: float | None
    p: float | None


class MeasuredCandidate(RecordPart):
    """A listed candidate with its metrics on the validation and test splits; None where it was not measured.

    `not_trained` says why it could not be trained, `not_eligible` why a rule can't judge it, so that it was not picked.
    """

    candidate: str
    method: str
    seed: int
    model_digest: str | None
    val: dict[str, Estimate] | None
    test: dict[str, Estimate] | None
    not_trained: str | None = None
    not_eligible: str | None = None

    @property
    def name(self) -> str:
        """That of its folder."""
        return str(CandidateId(self.candidate, self.seed))


class DecisionParams(RecordPart):
    """The values of params.yaml that a decision rests on: those of `gate`, and how intervals are made."""

    select_by: str
    alpha: float
    budget: dict[str, Any]
    min_patients_per_class: int
    rules: list[dict[str, Any]]
    confidence: float
    calibration_bins: int


class DecisionInputs(RecordPart):
    """SHA-256 of all files that a decision rests on; None for what a listed candidate lacks.

    `failures` holds those of the `failed.json` of candidates that could not be trained.
    """

    card: str
    manifest: str
    models: dict[str, str | None]
    predictions: dict[str, str | None]
    failures: dict[str, str] = {}


class DecisionRecord(Record):
    """The whole of a `decision.json`; the candidates stand in the order of params.yaml.

    `required` says in words what each rule asks for, whether it applied or not; `checks` what those found that applied;
    `held_out` which decision on the test split this is, None where that was not asked or nobody counts.
    """

    FORMAT: ClassVar[int] = 4
    STAGE: ClassVar[str] = "gate"

    dataset: str
    verdict: Literal["accepted", "rejected"]
    reasons: list[str]
    chosen: ChosenCandidate | None
    required: list[str]
    checks: list[RecordedCheck]
    cross_checks: list[CrossCheck]
    held_out: HeldOut | None
    champion: ChampionRef | None
    candidates: list[MeasuredCandidate]
    params: DecisionParams
    inputs: DecisionInputs
    tried: Behaviour | None = None  # of the challenger, where a rule asked for it

    @property
    def accepted(self) -> bool:
        """Whether the chosen candidate may become the champion."""
        return self.verdict == "accepted"

    @property
    def alpha(self) -> float:
        """Of each rule's one-sided test."""
        return self.params.alpha if self.held_out is None else self.held_out.alpha

    @property
    def ends(self) -> str:
        """What the ends of the checks' intervals are, as sentences."""
        named = {
            kind: ", ".join(dict.fromkeys(check.rule.replace("_", " ") for check in self.checks if check.ends == kind))
            for kind in ("bounds", "quartiles", "value")
        }
        sentences = (
            [f"Each end of an interval is a one-sided bound at alpha {self.alpha:.3g}."] if named["bounds"] else []
        )
        if named["quartiles"]:
            sentences.append(f"Of {named['quartiles']} the ends are quartiles of what was measured.")
        if named["value"]:
            sentences.append(f"Of {named['value']} the value itself counts, without an interval.")
        return " ".join(sentences)

    @property
    def best_of(self) -> str:
        """Among whom the candidate that it is shown with was the best on the validation split, as words behind that."""
        barred = [candidate.not_eligible is not None for candidate in self.candidates]
        return " of those that can be held to all rules" if any(barred) and not all(barred) else ""

    def is_chosen(self, candidate: MeasuredCandidate) -> bool:
        """Whether it is the candidate that the gate chose."""
        return self.chosen is not None and candidate.name == self.chosen.folder

    def shown(self) -> MeasuredCandidate | None:
        """The candidate that the decision is shown with: the chosen one; after a rejection the one that was best on
        the validation split, of those that could be picked if there are any; None if none was measured.

        Raises:
            InputCorrupt: the choice is none of the candidates.
        """
        if self.chosen is not None:
            chosen = next((candidate for candidate in self.candidates if self.is_chosen(candidate)), None)
            if chosen is None:
                raise InputCorrupt(
                    f"The decision on {self.dataset} chooses {self.chosen.folder!r}, which is none of its candidates. "
                    "Run `dvc repro`, so that the gate decides again."
                )
            return chosen
        eligible = [candidate for candidate in self.candidates if candidate.not_eligible is None]
        values = [(self._selected_by(candidate), candidate) for candidate in eligible or self.candidates]
        measured = [(value, candidate) for value, candidate in values if value is not None]
        return max(measured, key=lambda pair: pair[0], default=(None, None))[1]

    def _selected_by(self, candidate: MeasuredCandidate) -> float | None:
        estimate = (candidate.val or {}).get(self.params.select_by)
        return None if estimate is None else estimate.value

    def still_holds(self, inputs: DecisionInputs, params: DecisionParams, champion: ChampionRef | None) -> bool:
        """Whether no new decision is needed: same inputs and params, and either the chosen candidate is the champion
        by now, or all were rejected against the champion that still stands."""
        if champion is None or self.inputs != inputs or self.params != params:
            return False
        if self.chosen is not None:
            return self.chosen.model_digest == champion.model_digest
        return self.champion == champion

    def contradiction(self, now: "DecisionRecord") -> str | None:
        """What of this record does not follow from the predictions; None when all does.

        `now` is a decision on the same files and params, made just now beside today's champion, or beside none. The
        comparison with the champion of this record's day can't be repeated without it, and is not.
        """
        return next(self._contradictions(now), None)

    def _contradictions(self, now: "DecisionRecord") -> Iterator[str]:
        measured = {candidate.name: candidate for candidate in now.candidates}
        for candidate in self.candidates:
            if candidate != measured.pop(candidate.name, None):
                yield f"it tells of {candidate.name} what its predictions don't give"
        for name in measured:
            yield f"{name} is missing in it"
        if self.held_out != now.held_out:
            yield f"it takes itself for {_nth(self.held_out)}, and the registry counts {_nth(now.held_out)}"
        if self.accepted != (self.chosen is not None):
            yield "its verdict and its choice disagree"
        beaten = {check.candidate for check in self.checks if not check.passed and check.beside is not None}
        if self.chosen is None:
            if now.chosen is not None and now.chosen.folder not in beaten:
                yield f"it rejects {now.chosen.folder}, which the predictions give"
        elif self.chosen != now.chosen:
            given = now.chosen.folder if now.chosen else "none"
            yield f"it chooses {self.chosen.folder}, the predictions give {given} ({'; '.join(now.reasons)})"
        if (
            self._alone != now._alone
            or self.required != now.required
            or not all(check.is_consistent for check in self.checks)
        ):
            yield "its checks are not those of the predictions"
        if self.champion is None and (len(self._alone) < len(self.checks) or self.cross_checks):
            yield "it compares with a champion that it does not name"
        if self.champion is None and now.champion is None and self.reasons != now.reasons:
            yield "its reasons are not those of the predictions"

    @property
    def _alone(self) -> list[RecordedCheck]:
        """The checks that the run's files decide."""
        return [check for check in self.checks if check.beside is None]


def _nth(held_out: HeldOut | None) -> str:
    if held_out is None:
        return "no decision on its test split"
    return f"decision {held_out.number or 'none'} on its test split, at alpha {held_out.alpha:.3g}"


def earlier_decision(path: Path) -> DecisionRecord | None:
    """The record on disk; None when there is none or it is not readable, as a new one is made then."""
    try:
        return DecisionRecord.read(path)
    except (InputMissing, InputCorrupt):
        return None
