"""`decision.json`: the gate's record. Imports nothing heavy: on most runs the gate only finds that it still holds."""

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
        the validation split, of those that could be picked if there are any, and of equally good ones the gate's; None
        if none was measured.

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
        measured = [candidate for candidate in eligible or self.candidates if self._selected_by(candidate) is not None]
        return min(measured, key=self._rank, default=None)

    def _rank(self, candidate: MeasuredCandidate) -> tuple[float, CandidateId]:
        """By which the gate picks the challenger."""
        return -(self._selected_by(candidate) or 0.0), CandidateId(candidate.candidate, candidate.seed)

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


def earlier_decision(path: Path) -> DecisionRecord | None:
    """The record on disk; None when there is none or it is not readable, as a new one is made then."""
    try:
        return DecisionRecord.read(path)
    except (InputMissing, InputCorrupt):
        return None
