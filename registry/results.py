"""Results of experiments (docs/experiments.md) in MLflow: pushed for others to see, pulled for a table."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.experiments.results import TESTS, grouped, read_result
from clinprompt.experiments.scores import deviation, mean
from clinprompt.files import atomic, sha256_file
from clinprompt.scratch import ScratchFolder
from registry import lineage, tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FILE = "result_file"
DIGEST = "result_digest"
_FOLDERS = ("*/experiments/*/*.json", "*/transfer/*.json")
_SUBPATH = re.compile(r"[\w-]+/(experiments/\w+|transfer)/[\w-]+\.json")  # no way out of the folder that is pulled to


@dataclass(frozen=True)
class Moved:
    """A result file, its path below the folder of runs, and whether it was there already."""

    subpath: str
    unchanged: bool


def push(runs: Path, experiment: str) -> list[Moved]:
    """Log every result file below `runs` as a run of its own; one whose newest run holds the same bytes stays as it is.

    Raises:
        InputMissing: there are none.
        InputCorrupt: a file is no result of this version.
        BadParams: the registry can only be read.
        ServiceDown: the MLflow server does not answer.
    """
    files = sorted(path for pattern in _FOLDERS for path in runs.glob(pattern))
    if not files:
        raise InputMissing(f"There are no results below {runs}: `dvc repro experiments/dvc.yaml` makes them.")
    results = [(path, path.relative_to(runs).as_posix(), read_result(path)) for path in files]
    tracking.check_local_store_writable()
    client = tracking.connect()
    with tracking.service_errors():
        experiment_id = tracking.experiment_id(client, experiment)
        newest_runs = _newest(client, experiment_id)
        pushed = []
        for path, subpath, result in results:
            unchanged = subpath in newest_runs and newest_runs[subpath].data.tags.get(DIGEST) == sha256_file(path)
            if not unchanged:
                _log(client, experiment_id, path, subpath, result)
            pushed.append(Moved(subpath, unchanged))
    return pushed


def pull(folder: Path, experiment: str) -> list[Moved]:
    """Write the newest of every result in MLflow below `folder`, at the paths that they have below `runs`.

    Raises:
        InputMissing: MLflow has none.
        InputCorrupt: a file is not the one that was pushed, or its path is none of a result's.
        ServiceDown: the MLflow server does not answer.
    """
    none = InputMissing(
        f"MLflow at {tracking.shown_uri()} has no results in {experiment!r}; `python -m registry push-results`."
    )
    store = tracking.local_store()
    if store is not None and not store.exists():
        raise none
    client = tracking.connect()
    with tracking.service_errors():
        mlflow_experiment = client.get_experiment_by_name(experiment)
        runs = _newest(client, mlflow_experiment.experiment_id) if mlflow_experiment else {}
        if not runs:
            raise none
        return [_fetch(client, run, subpath, folder) for subpath, run in sorted(runs.items())]


def _newest(client: "MlflowClient", experiment: str) -> "dict[str, Run]":
    """The newest finished run of each result, by its path below the folder of runs."""
    newest: dict[str, Run] = {}
    for run in _finished(client, experiment):
        if subpath := run.data.tags.get(FILE):
            newest.setdefault(subpath, run)
    return newest


def _finished(client: "MlflowClient", experiment: str) -> "Iterator[Run]":
    token: str | None = ""
    while token is not None:
        page = client.search_runs(
            [experiment], "attributes.status = 'FINISHED'", order_by=["start_time DESC"], page_token=token or None
        )
        yield from page
        token = page.token or None


def _log(client: "MlflowClient", experiment: str, path: Path, subpath: str, result: dict[str, Any]) -> None:
    from mlflow.entities import Metric, Param

    named = ("dataset", "protocol", "method", "target")
    facts: dict[str, str] = {key: str(result[key]) for key in named if key in result}
    tags = {**facts, FILE: subpath, DIGEST: sha256_file(path)}
    if commit := lineage.git_commit():
        tags["git_commit"] = commit
    run = client.create_run(experiment, tags=tags, run_name=" ".join(facts.values()))
    now = int(1000 * time.time())
    metrics = [Metric(name, value, now, 0) for name, value in _metrics(result).items()]
    knobs = {**facts, "backbone": result["backbone"]["name"], **(result.get("config") or {})}
    client.log_batch(run.info.run_id, metrics, [Param(key, str(value)) for key, value in knobs.items()])
    client.log_artifact(run.info.run_id, str(path))
    client.set_terminated(run.info.run_id)  # from here on it counts


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    """Mean and deviation over the seeds, as "16/test_accuracy" (16 shots) and "16/test_accuracy_deviation"."""
    metrics: dict[str, float] = {}
    for group, rows in grouped(result["cells"]).items():
        prefix = "" if group == "all" else f"{group}/"
        completed = [row for row in rows if "left_out" not in row]
        for test in (test for test in TESTS if completed and test in completed[0]):
            for metric in SELECTABLE:
                values = [row[test][metric] for row in completed]
                for suffix, value in (("", mean(values)), ("_deviation", deviation(values))):
                    if value is not None:
                        metrics[f"{prefix}{test}_{metric}{suffix}"] = value
    return metrics


def _fetch(client: "MlflowClient", run: "Run", subpath: str, folder: Path) -> Moved:
    digest = run.data.tags.get(DIGEST)
    run_name = f"MLflow's run {run.info.run_id}"
    if not _SUBPATH.fullmatch(subpath):
        raise InputCorrupt(f"{run_name}: its tag {FILE} is {subpath!r}, which is no result's place; delete that run.")
    target = folder / subpath
    if target.is_file() and sha256_file(target) == digest:
        return Moved(subpath, unchanged=True)
    with ScratchFolder("results") as scratch:
        fetched = Path(client.download_artifacts(run.info.run_id, target.name, scratch))
        if sha256_file(fetched) != digest:
            raise InputCorrupt(
                f"{run_name}: {target.name} is not the file that was pushed (its SHA-256); delete that run."
            )
        with atomic(target) as partial:
            shutil.copyfile(fetched, partial)
    return Moved(subpath, unchanged=False)
