"""What a stage that failed had finished of the outputs that it goes on from: kept for its next try.

A workspace is thrown away with the process. Samples that a language model has answered, and features that were
computed, are too dear for that: they go into the remote, and their digests into the store, under the stage's name.
"""

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.errors import ClinpromptError
from workspace.repo import Workspace, compact, set_digest
from workspace.store import Store

log = logging.getLogger(__name__)

# What was kept may itself be what such a stage can't read: it must not be given the same again.
_NOT_TRUSTED = (ExitCode.INPUT_CORRUPT, ExitCode.BUG)


class _Kept(BaseModel):
    """By the output's path, its digest, size and number of files, as in a `LockEntry`."""

    model_config = ConfigDict(extra="forbid")
    outs: dict[str, list[str | int]]


def keep(workspace: Workspace, address: str, code: int) -> None:
    """Keep what the stage, which ended with this exit code, goes on from.

    The stage's own error is what a person has to know of, so one of the store is told in the log alone.
    """
    try:
        outs = {} if code in _NOT_TRUSTED else _sent(workspace, address)
        if outs or _kept(workspace.store, address).outs:
            workspace.store.write(_key(address), {"outs": outs})
    except ClinpromptError as error:
        log.warning("%s: what it had finished could not be kept for its next try: %s", address, error)


def bring(workspace: Workspace, stage: Any) -> set[str]:
    """Put into place what an earlier try has left, which holds what that one went on from; the outputs' paths.

    What can't be had is done again.
    """
    kept, brought = _kept(workspace.store, stage.addressing).outs, set()
    for out in _lasting(stage):
        if out.def_path not in kept:
            continue
        recorded = (out.hash_info, out.meta)
        set_digest(out, kept[out.def_path])
        try:
            workspace.pull([out])
            log.info("%s goes on from what its last try had finished of %s.", stage.addressing, out.def_path)
            brought.add(out.def_path)
        except ClinpromptError as lost:
            out.hash_info, out.meta = recorded
            log.warning("%s: what its last try had finished is gone (%s)", stage.addressing, lost)
    return brought


def forget(store: Store, address: str) -> None:
    """The stage has come to its end."""
    if _kept(store, address).outs:
        store.write(_key(address), {"outs": {}})


def _sent(workspace: Workspace, address: str) -> dict[str, list[str | int]]:
    stage = workspace.stage(address)
    outs = [out for out in _lasting(stage) if out.exists]
    for out in outs:
        out.save()
        out.commit()
    workspace.push_outs(stage, outs)
    entry = {"outs": [{"path": out.def_path, "md5": out.hash_info.value, **_size(out)} for out in outs]}
    return compact(stage, entry).outs


def _size(out: Any) -> dict[str, int]:
    files = {"nfiles": out.meta.nfiles} if out.meta.nfiles is not None else {}
    return {"size": int(out.meta.size or 0), **files}


def _lasting(stage: Any) -> list[Any]:
    return [out for out in stage.outs if out.persist and out.use_cache]


def _kept(store: Store, address: str) -> _Kept:
    return store.read_as(_Kept, _key(address)) or _Kept(outs={})


def _key(address: str) -> str:
    return f"unfinished/{address.replace('@', '/')}.json"
