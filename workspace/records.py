"""Records of finished runs in the store: `dvc.lock`, params and plan."""

from dataclasses import asdict, dataclass
from typing import Any

from clinprompt.errors import InputMissing
from clinprompt.files import sha256_bytes
from clinprompt.schema import check
from workspace.project import project_root, run_params
from workspace.repo import Workspace, lock_text
from workspace.store import Store
from workspace.task import LockEntry, Plan, RecordTask

_PREFIX = "records/"


@dataclass(frozen=True)
class RunRecord:
    """A finished run. Equal runs have equal records but for `airflow`, the Airflow run that wrote it last."""

    plan: dict[str, Any]
    params: str  # params.yaml
    lock: dict[str, Any]  # dvc.lock
    entries: list[dict[str, Any]]
    airflow: dict[str, Any]


@dataclass(frozen=True)
class _Pointer:
    """Which record is the last."""

    record: str


def record(task: RecordTask, store: Store) -> dict[str, Any]:
    """Merge the entries into the run's `dvc.lock` and keep it, with the params, under the release."""
    with Workspace.of(task.plan, store) as workspace:
        stages = {entry.stage: workspace.expand(entry) for entry in task.entries}
    text, _ = run_params(project_root(), task.plan.dataset, task.plan.overrides)
    digest = sha256_bytes(lock_text(stages).encode())
    entries = sorted((entry.model_dump() for entry in task.entries), key=lambda entry: str(entry["stage"]))
    run_record = RunRecord(task.plan.model_dump(), text, {"schema": "2.0", "stages": stages}, entries, task.airflow)
    key = f"{_PREFIX}{task.plan.dataset}/{task.plan.release}/{digest[:16]}.json"
    store.write(key, asdict(run_record))
    # The pointers are written last, so that they never lead to an incomplete record.
    for pointer in (_latest(task.plan.dataset, task.plan.release), _latest(task.plan.dataset, None)):
        store.write(pointer, {"record": key})
    return {"record": key, "lock": digest}


def latest_record(store: Store, dataset: str, release: str | None) -> str | None:
    """The key of the last record of a release, or of the dataset."""
    pointer = store.read_as(_Pointer, _latest(dataset, release))
    return pointer.record if pointer else None


def read_record(store: Store, key: str) -> RunRecord:
    """Read a record.

    Raises:
        InputMissing: it was removed from the store.
    """
    recorded = store.read_as(RunRecord, key)
    if recorded is None:
        raise InputMissing(f"{store.url}/{key} is not there any more; run the release again.")
    return recorded


def plan_of(recorded: RunRecord) -> Plan:
    """The plan that a recorded run had.

    Raises:
        BadParams: an earlier version of this project has recorded it.
    """
    return check(Plan, recorded.plan, "The run's record, of an earlier version: run the release again", "plan")


def entries_of(recorded: RunRecord) -> list[LockEntry]:
    """The entries that a recorded run had."""
    return [LockEntry.model_validate(entry) for entry in recorded.entries]


def _latest(dataset: str, release: str | None) -> str:
    return f"latest/{dataset}/{release}.json" if release else f"latest/{dataset}.json"
