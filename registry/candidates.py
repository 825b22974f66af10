"""Every candidate of a decision as an MLflow run, the rejected ones too, nested under one run of the decision.

Imports nothing heavy: most runs of the gate only find that the candidates are there.
"""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.decision import DecisionRecord, MeasuredCandidate
from clinprompt.evaluation.estimate import Estimate
from clinprompt.files import sha256_file
from clinprompt.revision import git_commit
from clinprompt.tuned.artifact import RECORD
from clinprompt.tuned.record import ModelRecord
from registry import links, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KIND, PARENT, NOTE = "kind", "mlflow.parentRunId", "mlflow.note.content"
LOGGED = "candidates_of"  # the tag of the decision's run: the digest of decision.json
_FOLDER = "candidate_folder"
_LOCAL = """
    SELECT 1 FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid
    WHERE tags.key = ? AND tags.value = ? AND runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active'
"""


def log_candidates(experiment: str, decision_file: Path, models: Path) -> bool:
    """Log every candidate of a decision: knobs, metrics with intervals, digests of its inputs, and what became of it.

    An earlier attempt that stopped is gone on with; whether there was anything to log is returned.

    Args:
        experiment: its name.
        models: the folder of the tuned models.

    Raises:
        ServiceDown: the MLflow server does not answer.
        BadParams: it wants other credentials.
    """
    digest = sha256_file(decision_file)
    if _is_in_local_store(digest):
        return False
    decision = DecisionRecord.read(decision_file)
    client = tracking.connect()
    with tracking.promotion_lock(), tracking.service_errors():
        experiment_id = tracking.experiment_id(client, experiment)
        parent = run_of_decision(client, experiment_id, digest)
        if parent is not None and parent.info.status == "FINISHED":
            return False
        parent_id = parent.info.run_id if parent else _open(client, experiment_id, decision, digest)
        nested = {run.data.tags.get(_FOLDER): run for run in _nested(client, experiment_id, parent_id)}
        for candidate in decision.candidates:
            run = nested.get(candidate.name)
            if run is None or run.info.status != "FINISHED":
                run_id = run.info.run_id if run else _nest(client, experiment_id, parent_id, decision, candidate)
                _fill(client, run_id, decision, candidate, models)
        client.set_terminated(parent_id)
    return True


def run_of_decision(client: "MlflowClient", experiment_id: str, digest: str) -> "Run | None":
    """The run that the candidates of the decision with this digest are nested under; None when there is none."""
    runs = client.search_runs([experiment_id], f"tags.{LOGGED} = '{digest}'", order_by=["attributes.start_time ASC"])
    return next(iter(runs), None)


def knobs(model: ModelRecord) -> dict[str, Any]:
    """The params of a candidate's run."""
    chosen = {"dataset": model.dataset, "candidate": model.candidate, "method": model.method, "seed": model.seed}
    return {**chosen, "backbone": model.backbone.name, **model.config}


def flat_metrics(val: Mapping[str, Estimate] | None, test: Mapping[str, Estimate] | None) -> dict[str, float]:
    """Names as "test_auroc", "test_auroc_low", "test_auroc_high"; undefined ones are left out."""
    flat = {}
    for split, estimates in (("val", val), ("test", test)):
        for name, estimate in (estimates or {}).items():
            for number, suffix in ((estimate.value, ""), (estimate.low, "_low"), (estimate.high, "_high")):
                if number is not None:
                    flat[f"{split}_{name}{suffix}"] = number
    return flat


def _is_in_local_store(digest: str) -> bool:
    """A quick look without MLflow, whose import takes longer than all else that an unchanged run does."""
    store = tracking.local_store()
    if store is None or not store.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(_LOCAL, (LOGGED, digest)).fetchone() is not None
    except sqlite3.DatabaseError:  # locked, or the tables of another release of MLflow: ask MLflow itself
        return False


def _open(client: "MlflowClient", experiment_id: str, decision: DecisionRecord, digest: str) -> str:
    """The run of the decision itself."""
    tags = {KIND: "decision", "verdict": decision.verdict, NOTE: _note(decision), **_common(decision)}
    name = f"{decision.dataset} {decision.verdict}"
    run = client.create_run(experiment_id, tags=tags | {LOGGED: digest} | links.airflow_tags(), run_name=name)
    return str(run.info.run_id)


def _nested(client: "MlflowClient", experiment_id: str, parent_id: str) -> "list[Run]":
    found: list[Run] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment_id], f"tags.`{PARENT}` = '{parent_id}'", page_token=token or None)
        found += page
        token = page.token or None
    return found


def _nest(
    client: "MlflowClient", experiment_id: str, parent_id: str, decision: DecisionRecord, candidate: MeasuredCandidate
) -> str:
    tags = {KIND: "candidate", PARENT: parent_id, _FOLDER: candidate.name, **_common(decision)}
    run = client.create_run(experiment_id, tags=tags, run_name=f"{decision.dataset} {candidate.name}")
    return str(run.info.run_id)


def _fill(
    client: "MlflowClient", run_id: str, decision: DecisionRecord, candidate: MeasuredCandidate, models: Path
) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(1000 * time.time())
    numbers = flat_metrics(candidate.val, candidate.test)
    facts = {
        "candidate": candidate.candidate,
        "method": candidate.method,
        "seed": str(candidate.seed),
        "decision": _outcome(decision, candidate),
        "model_digest": candidate.model_digest,
        "predictions_digest": decision.inputs.predictions.get(candidate.name),
    }
    client.log_batch(
        run_id,
        [Metric(name, value, now, 0) for name, value in numbers.items()],
        [Param(key, str(value)) for key, value in _knobs(decision, candidate, models).items()],
        [RunTag(key, value) for key, value in facts.items() if value is not None],
    )
    client.set_terminated(run_id)


def _knobs(decision: DecisionRecord, candidate: MeasuredCandidate, models: Path) -> dict[str, Any]:
    try:
        return knobs(ModelRecord.read(models / candidate.name / RECORD))
    except (InputMissing, InputCorrupt):  # a candidate that could not be trained has its run too
        known = {"candidate": candidate.candidate, "method": candidate.method, "seed": candidate.seed}
        return {"dataset": decision.dataset, **known}


def _common(decision: DecisionRecord) -> dict[str, str]:
    inputs = {"card_digest": decision.inputs.card, "manifest_digest": decision.inputs.manifest}
    commit = git_commit()
    return {"dataset": decision.dataset, **inputs, **({"git_commit": commit} if commit else {})}


def _outcome(decision: DecisionRecord, candidate: MeasuredCandidate) -> str:
    if decision.is_chosen(candidate):
        return "chosen"
    if candidate.not_trained is not None:
        return "not trained"
    if candidate.test is None:
        return "not measured"
    if candidate.not_eligible is not None:
        return "not eligible"
    return "not chosen" if decision.accepted else "rejected"


def _note(decision: DecisionRecord) -> str:
    """The reasons, where they are numbers; why a candidate can't be judged may name an image's file."""
    if not decision.checks:
        return f"{decision.verdict}: see the reasons in decision.json"
    return f"{decision.verdict}: {'; '.join(decision.reasons)}"
