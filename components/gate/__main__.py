"""gate: decide whether the best candidate may be promoted.

The stage runs on every `dvc repro`, so what is heavy is imported only when a decision has to be made.
"""

import logging
import os
from typing import TYPE_CHECKING, Any

import registry
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.variables import GATE_EXIT_CODE
from clinprompt.evaluation.decision import (
    ChampionRef,
    DecisionInputs,
    DecisionParams,
    DecisionRecord,
    earlier_decision,
)
from clinprompt.evaluation.record_decision import input_digests, to_record
from clinprompt.params import CandidatesParams, EvaluationParams, GateParams, RegistryParams
from components.runner import Job, run

if TYPE_CHECKING:
    from clinprompt.data.dataset import Dataset
    from clinprompt.evaluation.gate import Candidate, Incumbent, Rules
    from clinprompt.evaluation.predictions import Predictions

log = logging.getLogger(__name__)

_BATCH = 256  # images in memory at a time


def work(job: Job) -> dict[str, Any]:
    """Look whether the record on disk still holds; if not, decide anew."""
    names = [str(candidate) for candidate in job.params(CandidatesParams).ids]
    inputs = input_digests(
        job.inputs["card"], job.inputs["manifest"], job.inputs["models"], job.inputs["evaluations"], names
    )
    champion = registry.champion(job.params(RegistryParams).production_model.format(dataset=job.arguments["dataset"]))
    reference = _reference(champion) if champion else None
    record = earlier_decision(job.outputs["decision"])
    if record is not None and record.still_holds(inputs, _params(job), reference):
        log.info("gate: nothing to do: the decision on disk still holds.")
        return _result(record, reference, changed=False)
    record = _decide(job, inputs, champion, reference)
    record.write(job.outputs["decision"])
    return _result(record, reference, changed=True)


def _reference(champion: registry.Champion) -> ChampionRef:
    return ChampionRef(name=champion.name, version=str(champion.version), model_digest=champion.model_digest)


def _params(job: Job) -> DecisionParams:
    gate, evaluation = job.params(GateParams), job.params(EvaluationParams)
    return DecisionParams(
        select_by=gate.select_by,
        floors={str(metric): floor for metric, floor in gate.floors.items()},
        margin=gate.margin,
        bootstrap_resamples=evaluation.bootstrap_resamples,
        confidence=evaluation.confidence,
        calibration_bins=evaluation.calibration_bins,
    )


def _decide(
    job: Job, inputs: DecisionInputs, champion: registry.Champion | None, reference: ChampionRef | None
) -> DecisionRecord:
    from clinprompt.data.dataset import Dataset
    from clinprompt.evaluation.candidates import Listed, load_candidate
    from clinprompt.evaluation.gate import decide

    name = job.arguments["dataset"]
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    classes = tuple(dataset.card.class_ids)
    params = job.params(CandidatesParams)
    listed = [Listed(c, params.method_of(c.name), inputs.models[str(c)]) for c in params.ids]
    evaluations = job.inputs["evaluations"]
    candidates = [load_candidate(entry, evaluations, dataset.rows, name, classes) for entry in listed]
    incumbent = _incumbent(champion, candidates, dataset) if champion else None
    return to_record(
        decide(candidates, incumbent, _rules(job)),
        dataset=name,
        candidates=listed,
        champion=reference,
        params=_params(job),
        inputs=inputs,
    )


def _rules(job: Job) -> "Rules":
    from clinprompt.evaluation.gate import Rules
    from clinprompt.evaluation.intervals import Bootstrap

    gate, evaluation = job.params(GateParams), job.params(EvaluationParams)
    bootstrap = Bootstrap(evaluation.bootstrap_resamples, evaluation.confidence, evaluation.calibration_bins)
    return Rules(gate.select_by, {str(metric): floor for metric, floor in gate.floors.items()}, gate.margin, bootstrap)


def _incumbent(champion: registry.Champion, candidates: "list[Candidate]", dataset: "Dataset") -> "Incumbent":
    """The champion on the test images: a candidate's predictions where it is one, else its own, made now."""
    from clinprompt.evaluation.gate import Incumbent

    version, classes = str(champion.version), dataset.card.class_ids
    for candidate in candidates:
        if candidate.model_digest == champion.model_digest and candidate.test is not None:
            return Incumbent(champion.name, version, champion.model_digest, candidate.test)
    if list(champion.classes) != classes:
        problem = f"the champion knows the classes {list(champion.classes)}, the card {classes}"
        return Incumbent(champion.name, version, champion.model_digest, None, problem)
    return Incumbent(champion.name, version, champion.model_digest, _predict(champion, dataset))


def _predict(champion: registry.Champion, dataset: "Dataset") -> "Predictions":
    import numpy as np

    from clinprompt.data.dataset import read_image
    from clinprompt.data.manifest import patients
    from clinprompt.evaluation.predictions import Predictions
    from clinprompt.evaluation.table import evaluated_rows
    from clinprompt.progress import progress

    rows = evaluated_rows(dataset.rows)
    rows = rows[rows["split"] == "test"]
    listed = dataset.items(rows)
    parts = [
        champion.predict([read_image(item) for item in listed[start : start + _BATCH]])
        for start in progress(range(0, len(listed), _BATCH), "champion on the test images", unit="batch")
    ]
    return Predictions(
        labels=dataset.labels(rows),
        probabilities=np.concatenate(parts).astype(np.float64),
        patients=patients(rows).to_numpy(dtype=str),
        classes=tuple(dataset.card.class_ids),
    )


def _result(record: DecisionRecord, champion: ChampionRef | None, *, changed: bool) -> dict[str, Any]:
    digest = record.chosen and record.chosen.model_digest
    log.info("%s: %s.", record.verdict.upper(), "; ".join(record.reasons))
    facts: dict[str, Any] = {
        "dataset": record.dataset,
        "verdict": record.verdict,
        "chosen": record.chosen and record.chosen.folder,
        "already_champion": digest is not None and champion is not None and champion.model_digest == digest,
        "reasons": record.reasons,
        "changed": changed,
    }
    if not record.accepted and os.environ.get(GATE_EXIT_CODE) == "1":
        facts["exit_code"] = int(ExitCode.GATE_REJECTED)
    return facts


if __name__ == "__main__":
    run(__file__, work)
