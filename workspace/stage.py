"""One DVC stage: taken from the run cache, or run in a workspace of its own and pushed."""

import copy
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.tasks import MAX_ENTRY_BYTES
from clinprompt.contract.variables import AIRFLOW, RESULT
from clinprompt.errors import ClinpromptError, InputCorrupt, InputMissing
from clinprompt.files import read_json
from workspace import unfinished
from workspace.objects import exist
from workspace.records import read_record
from workspace.repo import Workspace, compact, is_params, plain, set_digest
from workspace.store import Store, service_errors
from workspace.task import LockEntry, StageTask

log = logging.getLogger(__name__)

_RUNNER_KEYS = {"component", "seconds", "status", "exit_code"}


class StageFailed(ClinpromptError):
    """The component ended with an error of its own, which becomes the task's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def probe(task: StageTask, store: Store) -> dict[str, Any]:
    """Look up whether the stage has run with these inputs before, without moving data."""
    with Workspace.of(task.plan, store) as workspace:
        stage = workspace.stage(task.address)
        entry = _earlier_entry(task, workspace, stage) if _set_input_digests(task, stage) else None
    return {"entry": entry and entry.model_dump()}


def run_stage(task: StageTask, store: Store) -> dict[str, Any]:
    """Run the stage, unless it has run before.

    Raises:
        StageFailed: the component's own error, with its exit code.
        InputCorrupt: an input's bytes in the store are not what its digest says.
    """
    with Workspace.of(task.plan, store) as workspace:
        stage = workspace.stage(task.address)
        inputs_known = _set_input_digests(task, stage)
        entry = _earlier_entry(task, workspace, stage) if inputs_known else None
        if entry is None:
            _prepare(task, workspace)
            stage = workspace.stage(task.address)
            if not inputs_known and _set_input_digests(task, stage):
                entry = _earlier_entry(task, workspace, stage)
        if entry is not None:
            log.info("%s: nothing to compute: an earlier run had the same inputs.", task.address)
            return {"entry": entry.model_dump(), "cached": True, "facts": {}}
        try:
            facts = _reproduce(task, workspace)
        except StageFailed as error:
            unfinished.keep(workspace, task.address, error.code)
            raise
        stage = workspace.stage(task.address)
        workspace.push(stage)
        entry = _finished_entry(task, workspace, stage)
        unfinished.forget(store, task.address)
    return {"entry": entry.model_dump(), "cached": False, "facts": facts}


def _earlier_entry(task: StageTask, workspace: Workspace, stage: Any) -> LockEntry | None:
    """The entry of an earlier run of the stage with equal command, inputs and params."""
    if stage.always_changed:
        return None
    previous = _previous(task, workspace.store)
    if previous is not None and _is_unchanged(task, stage, previous) and _is_stored(workspace, previous):
        return compact(stage, previous)
    cached = _from_run_cache(workspace, stage)
    return compact(stage, cached) if cached else None


def _set_input_digests(task: StageTask, stage: Any) -> bool:
    """Set the digests of the stage's dependencies; False where one is only known after a download."""
    outs = {path: digest for entry in task.entries for path, digest in entry.outs.items()}
    for dep in stage.deps:
        if is_params(dep) or dep.fs.exists(dep.fs_path):
            dep.save()
        elif dep.def_path in outs:
            set_digest(dep, outs[dep.def_path])
        else:  # a folder that several stages write to
            return False
    return True


def _is_unchanged(task: StageTask, stage: Any, previous: dict[str, Any]) -> bool:
    sources = {out.def_path for out in stage.outs if not out.use_cache}
    if any(out["md5"] != task.plan.digest for out in previous["outs"] if out["path"] in sources):
        return False
    current = _entry_without_outs(stage)
    return all(current.get(key) == previous.get(key) for key in ("cmd", "deps", "params"))


def _entry_without_outs(stage: Any) -> dict[str, Any]:
    """The stage's lock entry before it has outputs: command, inputs and params."""
    from dvc.stage.serialize import to_single_stage_lockfile

    without_outs = copy.copy(stage)
    without_outs.outs = []
    return plain(to_single_stage_lockfile(without_outs))


def _from_run_cache(workspace: Workspace, stage: Any) -> dict[str, Any] | None:
    """What DVC's run cache in the remote holds for the stage, when its outputs are there too."""
    from dvc.stage.cache import _get_cache_hash

    if any(out.persist for out in stage.outs):  # DVC never caches such runs
        return None
    key = _get_cache_hash(
        {**_entry_without_outs(stage), "outs": [{"path": p} for p in sorted(o.def_path for o in stage.outs)]}, key=True
    )
    with service_errors(workspace.store.url):
        odb = workspace.repo.cloud.get_remote_odb(None, "status", hash_name="md5-dos2unix")
        folder = odb.fs.join(odb.path, "runs", key[:2], key)
        cached_runs = sorted(odb.fs.find(folder)) if odb.fs.exists(folder) else []
        if not cached_runs:
            return None
        entry: dict[str, Any] = yaml.safe_load(odb.fs.cat_file(cached_runs[0]))
    return entry if _is_stored(workspace, entry) else None


def _is_stored(workspace: Workspace, entry: dict[str, Any]) -> bool:
    with service_errors(workspace.store.url):
        return exist(workspace.repo, [out["md5"] for out in entry["outs"]])


def _prepare(task: StageTask, workspace: Workspace) -> None:
    """Fetch what the stage reads, and what it builds on."""
    previous = _previous(task, workspace.store)
    entries = {entry.stage: workspace.expand(entry) for entry in task.entries}
    if previous is not None:
        entries[task.address] = previous
    workspace.write_lock(entries)
    stage = workspace.stage(task.address)
    missing_paths = [dep.fs_path for dep in stage.deps if not is_params(dep) and not dep.fs.exists(dep.fs_path)]
    for entry in task.entries:
        for out in workspace.stage(entry.stage).outs:
            if out.use_cache and any(_is_within(out.fs_path, path) for path in missing_paths):
                workspace.pull([out])
    brought = unfinished.bring(workspace, stage)
    for out in stage.outs:
        if not out.use_cache:
            workspace.download(task.plan.digest, Path(out.fs_path))
        elif out.persist and previous is not None and out.def_path not in brought:
            try:
                workspace.pull([out])
            except InputMissing as lost:
                log.warning("%s: what the stage built on is gone; it begins anew (%s)", task.address, lost)


def _reproduce(task: StageTask, workspace: Workspace) -> dict[str, Any]:
    from dvc.exceptions import ReproductionError

    result = workspace.folder / ".dvc" / "tmp" / "result.json"
    variables = {
        RESULT: str(result),
        AIRFLOW: json.dumps(task.airflow, sort_keys=True),
        "PYTHONDONTWRITEBYTECODE": "1",  # the workspace holds what DVC hashes, and is thrown away
        # The stages say `python`: let it be this one.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    with _environment(variables):
        try:
            workspace.repo.reproduce(targets=[task.address], single_item=True)
        except ReproductionError as error:
            raise _failure(task, result, error) from None
    line = read_json(result) if result.exists() else {}
    return {key: value for key, value in line.items() if key not in _RUNNER_KEYS}


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that DVC starts."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _failure(task: StageTask, result: Path, error: Exception) -> StageFailed:
    from dvc.stage.exceptions import StageCmdFailedError

    if result.exists():
        line = read_json(result)
        return StageFailed(line["message"], line["exit_code"])
    cause = error.__cause__
    if isinstance(cause, StageCmdFailedError):
        status = int(str(cause).rsplit(maxsplit=1)[-1])  # DVC says it in words only
        code = 128 - status if status < 0 else status
        return StageFailed(f"{task.address} was killed, or could not start (status {code}).", code)
    return StageFailed(f"{task.address}: {cause or error}", int(ExitCode.BUG))


def _finished_entry(task: StageTask, workspace: Workspace, stage: Any) -> LockEntry:
    lock = yaml.safe_load((workspace.folder / "dvc.lock").read_text(encoding="utf-8"))
    entry = compact(stage, lock["stages"][task.address])
    for out in stage.outs:
        if not out.use_cache and entry.outs[out.def_path][0] != task.plan.digest:
            raise InputCorrupt(
                f"{task.address} has changed the release {task.plan.partition} while reading it; publish the files "
                "without the stamp of their generator, or with the card that they were made by."
            )
    if len(entry.model_dump_json()) > MAX_ENTRY_BYTES:
        raise ValueError(f"the entry of {task.address} is longer than {MAX_ENTRY_BYTES} bytes")
    return entry


def _previous(task: StageTask, store: Store) -> dict[str, Any] | None:
    if task.plan.previous is None:
        return None
    entry: dict[str, Any] | None = read_record(store, task.plan.previous).lock["stages"].get(task.address)
    return entry


def _is_within(path: str, folder: str) -> bool:
    return path == folder or Path(folder) in Path(path).parents
