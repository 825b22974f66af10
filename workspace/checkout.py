"""Restore a recorded run in a clone: its `dvc.lock`, params and files, so that `dvc repro` has nothing to do."""

import logging
from pathlib import Path
from typing import Any

from clinprompt.contract.files import IMAGES_LOCK
from clinprompt.errors import BadParams
from clinprompt.files import write_text
from workspace.decisions import put_pinned
from workspace.records import latest_record, plan_of, read_record
from workspace.repo import Workspace, lock_text
from workspace.store import Store

log = logging.getLogger(__name__)


def checkout(store: Store, run: str, folder: Path) -> dict[str, Any]:
    """Restore the last recorded run of DATASET or DATASET@RELEASE in the project at `folder`.

    `params.yaml`, `infra/images.lock` and `dvc.lock` are replaced, and where the run had more decisions on descriptions
    than the card's file, that file; the dataset's files go to `data/<dataset>`.

    Raises:
        BadParams: no such run, no DVC project at `folder`, or other files at `data/<dataset>`.
        InputMissing, InputCorrupt: the store has lost or changed a file of the run.
    """
    dataset, _, release = run.partition("@")
    key = latest_record(store, dataset, release or None)
    if key is None:
        raise BadParams(f"No run of {run} is recorded in {store.url}.")
    if not (folder / ".dvc").is_dir():
        raise BadParams(f"{folder} is not a DVC project; run this in a clone of the project.")
    recorded = read_record(store, key)
    plan = plan_of(recorded)
    data = folder / "data" / dataset
    if data.exists() or data.is_symlink():
        raise BadParams(f"{data} exists; move it away, the release's own files go there.")
    write_text(folder / "params.yaml", recorded.params)
    if plan.images is not None:
        write_text(folder / IMAGES_LOCK, plan.images)
    for name, text in plan.locks.items():
        write_text(folder / name, text)
    put_pinned(plan, store, folder)
    write_text(folder / "dvc.lock", lock_text(recorded.lock["stages"]))
    workspace = Workspace(folder, store)
    for address in recorded.lock["stages"]:
        log.info("fetching %s", address)
        workspace.pull(out for out in workspace.stage(address).outs if out.use_cache)
    workspace.download(plan.digest, data)
    return {"record": key, "dataset": dataset, "release": plan.release, "stages": len(recorded.lock["stages"])}
