"""What a decision rests on, by digest, and the record of the decision itself."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.contract.candidates import CandidateId
from clinprompt.data.card_parts import rest_digest
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.decision import (
    ChampionRef,
    ChosenCandidate,
    DecisionInputs,
    DecisionParams,
    DecisionRecord,
    MeasuredCandidate,
)
from clinprompt.evaluation.recorded_check import RecordedCheck
from clinprompt.files import sha256_file
from clinprompt.tuned.artifact import model_digest
from clinprompt.tuned.failure import FAILED, failure_in

if TYPE_CHECKING:
    from clinprompt.evaluation.candidates import Listed
    from clinprompt.evaluation.gate import Decision
    from clinprompt.evaluation.rules import Check


def input_digests(card: Path, manifest: Path, models: Path, evaluations: Path, names: Iterable[str]) -> DecisionInputs:
    """SHA-256 of all that a decision on the candidates with these folder names rests on; of the card what decides."""
    listed = list(names)
    return DecisionInputs(
        card=rest_digest(card),
        manifest=sha256_file(manifest),
        models={name: _model(models / name) for name in listed},
        predictions={name: _file(evaluations / name / "predictions.parquet") for name in listed},
        failures={name: sha256_file(models / name / FAILED) for name in listed if failure_in(models / name)},
    )


def to_record(
    decision: "Decision",
    *,
    dataset: str,
    candidates: "Sequence[Listed]",
    champion: ChampionRef | None,
    params: DecisionParams,
    required: list[str],
    inputs: DecisionInputs,
) -> DecisionRecord:
    """The whole record; `candidates` in the params' order, and what each rule asks for."""
    methods = {listed.id: listed.method for listed in candidates}
    return DecisionRecord(
        dataset=dataset,
        verdict="accepted" if decision.accepted else "rejected",
        reasons=decision.reasons,
        chosen=_chosen(decision, methods),
        required=required,
        checks=[_check(check) for check in decision.checks],
        cross_checks=decision.cross_checks,
        held_out=decision.held_out,
        champion=champion,
        candidates=[_measured(decision, listed) for listed in candidates],
        params=params,
        inputs=inputs,
    )


def _chosen(decision: "Decision", methods: Mapping[CandidateId, str]) -> ChosenCandidate | None:
    chosen = decision.chosen
    if chosen is None:
        return None
    return ChosenCandidate(
        candidate=chosen.id.name,
        method=methods[chosen.id],
        seed=chosen.id.seed,
        folder=chosen.name,
        model_digest=str(chosen.model_digest),
    )


def _check(check: "Check") -> RecordedCheck:
    return RecordedCheck(
        rule=check.rule,
        candidate=check.candidate,
        name=check.name,
        bound=check.bound,
        side=check.side,
        passed=check.passed,
        says=check.says,
        change=check.change,
        beside=check.beside,
        design=check.design,
        ends=check.ends,
        **check.estimate.to_json(),
    )


def _measured(decision: "Decision", listed: "Listed") -> MeasuredCandidate:
    name = str(listed.id)
    return MeasuredCandidate(
        candidate=listed.id.name,
        method=listed.method,
        seed=listed.id.seed,
        model_digest=listed.model_digest,
        val=decision.val.get(name),
        test=decision.test.get(name),
        not_trained=decision.not_trained.get(name),
        not_eligible=decision.not_eligible.get(name),
    )


def _model(folder: Path) -> str | None:
    try:
        return model_digest(folder)
    except (InputMissing, InputCorrupt):
        return None


def _file(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None
