"""gate: decide whether the best candidate may be promoted.

The stage runs on every `dvc repro`, so what is heavy is imported only when a decision has to be made.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import registry
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.variables import GATE_EXIT_CODE
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.decision import ChampionRef, input_digests, read_decision, still_holds, to_record
from clinprompt.files import sha256_bytes, write_json
from components.runner import Job, run

if TYPE_CHECKING:
    import pandas as pd

    from clinprompt.evaluation.gate import Candidate, Incumbent, Rules
    from clinprompt.evaluation.predictions import Predictions

log = logging.getLogger(__name__)

_BATCH = 256  # images in memory at a time


def work(job: Job) -> dict[str, Any]:
    """Look whether the record on disk still holds; if not, decide anew."""
    listed = job.params("candidates")
    names = [f"{method}-{seed}" for method in listed.methods for seed in listed.seeds]
    inputs = input_digests(
        job.inputs["card"], job.inputs["manifest"], job.inputs["models"], job.inputs["evaluations"], names
    )
    champion = registry.champion(job.params("registry").production_model.format(dataset=job.arguments["dataset"]))
    reference = ChampionRef(champion.name, str(champion.version), champion.model_digest) if champion else None
    record = read_decision(job.outputs["decision"])
    if record is not None and still_holds(record, inputs, _params(job), reference):
        log.info("gate: nothing to do: the decision on disk still holds.")
        return _result(record, reference, changed=False)
    record = _decide(job, inputs, champion, reference)
    write_json(job.outputs["decision"], record)
    return _result(record, reference, changed=True)


def _params(job: Job) -> dict[str, Any]:
    evaluation = job.params("evaluation")
    keys = ("bootstrap_resamples", "confidence", "calibration_bins")
    return {**job.params("gate").model_dump(), **{key: getattr(evaluation, key) for key in keys}}


def _decide(
    job: Job, inputs: dict[str, Any], champion: registry.Champion | None, reference: ChampionRef | None
) -> dict[str, Any]:
    from clinprompt.data.load import load_card
    from clinprompt.data.manifest import read_manifest
    from clinprompt.evaluation.candidates import Listed, load_candidate
    from clinprompt.evaluation.gate import decide

    dataset = job.arguments["dataset"]
    classes = tuple(load_card(job.inputs["card"]).class_ids)
    manifest = read_manifest(job.inputs["manifest"])
    params = job.params("candidates")
    listed = [Listed(m, s, inputs["models"][f"{m}-{s}"]) for m in params.methods for s in params.seeds]
    candidates = [load_candidate(one, job.inputs["evaluations"], manifest, dataset, classes) for one in listed]
    incumbent = _incumbent(champion, candidates, manifest, job.inputs["images"], classes) if champion else None
    return to_record(
        decide(candidates, incumbent, _rules(job)),
        dataset=dataset,
        candidates=[(one.method, one.seed, one.model_digest) for one in listed],
        champion=reference,
        params=_params(job),
        inputs=inputs,
    )


def _rules(job: Job) -> "Rules":
    from clinprompt.evaluation.gate import Rules
    from clinprompt.evaluation.intervals import Bootstrap

    gate, evaluation = job.params("gate"), job.params("evaluation")
    bootstrap = Bootstrap(evaluation.bootstrap_resamples, evaluation.confidence, evaluation.calibration_bins)
    return Rules(gate.select_by, dict(gate.floors), gate.margin, bootstrap)


def _incumbent(
    champion: registry.Champion,
    candidates: "list[Candidate]",
    manifest: "pd.DataFrame",
    images: Path,
    classes: tuple[str, ...],
) -> "Incumbent":
    """The champion on the test images: a candidate's predictions where it is one, else its own, made now."""
    from clinprompt.evaluation.gate import Incumbent

    version = str(champion.version)
    for candidate in candidates:
        if candidate.model_digest == champion.model_digest and candidate.test is not None:
            return Incumbent(champion.name, version, champion.model_digest, candidate.test)
    if tuple(champion.classes) != classes:
        problem = f"the champion knows the classes {list(champion.classes)}, the card {list(classes)}"
        return Incumbent(champion.name, version, champion.model_digest, None, problem)
    return Incumbent(champion.name, version, champion.model_digest, _predict(champion, manifest, images, classes))


def _predict(
    champion: registry.Champion, manifest: "pd.DataFrame", images: Path, classes: tuple[str, ...]
) -> "Predictions":
    import numpy as np

    from clinprompt.data.manifest import patients
    from clinprompt.evaluation.predictions import Predictions
    from clinprompt.evaluation.table import evaluated_rows
    from clinprompt.progress import progress

    rows = evaluated_rows(manifest)
    rows = rows[rows["split"] == "test"]
    pairs = list(zip(rows["file"], rows["id"], strict=True))
    parts = [
        champion.predict([_image(images / file, digest) for file, digest in pairs[start : start + _BATCH]])
        for start in progress(range(0, len(pairs), _BATCH), "champion on the test images", unit="batch")
    ]
    index = {class_id: c for c, class_id in enumerate(classes)}
    return Predictions(
        labels=np.array([index[label] for label in rows["label"]], dtype=np.int64),
        probabilities=np.concatenate(parts).astype(np.float64),
        patients=patients(rows).to_numpy(dtype=str),
        classes=classes,
    )


def _image(path: Path, digest: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist; run the ingest stage again (dvc repro).") from None
    if sha256_bytes(data) != digest:
        raise InputCorrupt(f"{path} is not the image that the manifest lists; run the ingest stage again (dvc repro).")
    return data


def _result(record: dict[str, Any], champion: ChampionRef | None, *, changed: bool) -> dict[str, Any]:
    accepted = record["verdict"] == "accepted"
    log.info("%s: %s.", "ACCEPTED" if accepted else "REJECTED", "; ".join(record["reasons"]))
    chosen = record["chosen"] or {}
    facts = {
        "dataset": record["dataset"],
        "verdict": record["verdict"],
        "chosen": chosen.get("folder"),
        "already_champion": accepted and champion is not None and champion.model_digest == chosen["model_digest"],
        "reasons": record["reasons"],
        "changed": changed,
    }
    if not accepted and os.environ.get(GATE_EXIT_CODE) == "1":
        facts["exit_code"] = int(ExitCode.GATE_REJECTED)
    return facts


if __name__ == "__main__":
    run(__file__, work)
