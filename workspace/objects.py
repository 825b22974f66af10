"""DVC's objects on their way from the store to a workspace: every byte is held against the name that it lies under."""

import contextlib
import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from clinprompt.contract.variables import CACHE
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from components.inputs import is_whole
from workspace.store import Store, service_errors

log = logging.getLogger(__name__)

_TRUSTED = 0o444  # the mode of an object that DVC has looked at once, and looks at no more


def pull(repo: Any, store: Store, out: Any) -> None:
    """Fetch an output from the store, unless the machine has it, and put it into place.

    Raises:
        InputCorrupt: an object's bytes are not what its name says.
        InputMissing: the store doesn't hold it.
        ServiceDown: the store does not answer.
    """
    with service_errors(store.url):
        try:
            _look_at(repo, store, {out.def_path: out.hash_info.value}, out)
            if out.hash_info.isdir:
                out.get_dir_cache()  # fetches the listing
                _look_at(repo, store, _listed(out), out)
            results = [repo.cloud.pull(objects, odb=odb) for odb, objects in out.get_used_objs().items()]
            if not any(result.failed for result in results):
                out.checkout()
                return
        except dvc_errors() as error:
            log.debug("%s", error)
        _explain(repo, store, out)


def exist(repo: Any, digests: Iterable[str]) -> bool:
    """Whether the store holds all of these objects."""
    remote = repo.cloud.get_remote_odb(None, "status")
    return all(remote.exists(digest) for digest in digests)


def discard(repo: Any, digests: Iterable[str]) -> list[str]:
    """Remove objects from the store, so that the stages that made them make them again; those that were there.

    Raises:
        BadParams: one of them is no object's name.
    """
    remote = repo.cloud.get_remote_odb(None, "fetch")
    removed = []
    for digest in digests:
        plain = digest.removesuffix(".dir")
        if len(plain) != 32 or set(plain) - set("0123456789abcdef"):
            raise BadParams(f"{digest!r} is no object's name: 32 hexadecimal digits, and .dir for a folder's listing.")
        if remote.exists(digest):
            remote.fs.remove(remote.oid_to_path(digest))
            removed.append(digest)
    return removed


def dvc_errors() -> tuple[type[Exception], ...]:
    """What DVC raises where an object is missing or is not what it should be."""
    from dvc.exceptions import DvcException
    from dvc_objects.errors import ObjectDBError, ObjectFormatError

    return (DvcException, ObjectDBError, ObjectFormatError, FileNotFoundError)


def _look_at(repo: Any, store: Store, digests: dict[str, str], out: Any) -> None:
    """Hold objects, by the paths that they are for, against their names where DVC itself does not, or does it harm.

    DVC takes a read-only object of a cache that tasks share for whole: one that is not is removed there, and fetched.
    From a folder it deletes what is not whole without a word, and calls it missing: such an object is left to be seen.
    """
    remote = repo.cloud.get_remote_odb(None, "fetch")
    in_folder = "local" in remote.fs.protocol
    for path, digest in digests.items():
        held = Path(repo.cache.local.oid_to_path(digest))
        if os.environ.get(CACHE) and held.is_file() and not is_whole(held):
            log.warning("%s (%s) is not what its name says; it is removed and fetched again.", held, path)
            held.unlink(missing_ok=True)
        stored = Path(remote.oid_to_path(digest)) if in_folder else None
        if stored is None or held.exists() or not stored.is_file():
            continue
        if stat.S_IMODE(stored.stat().st_mode) != _TRUSTED and not is_whole(stored):
            raise _corrupt(store, path, digest, out)


def _explain(repo: Any, store: Store, out: Any) -> NoReturn:
    """Raise for an output that could not be fetched: corrupt if the store has it all the same, else missing."""
    store.check()
    remote = repo.cloud.get_remote_odb(None, "fetch")
    digests = {out.def_path: out.hash_info.value}
    if out.hash_info.isdir:
        with contextlib.suppress(*dvc_errors()):
            digests |= _listed(out)
    lost = {path: digest for path, digest in digests.items() if not repo.cache.local.exists(digest)}
    for path, digest in lost.items():
        if remote.exists(digest):
            raise _corrupt(store, path, digest, out)
    path, digest = next(iter(lost.items()), (out.def_path, out.hash_info.value))
    raise InputMissing(f"{store.remote}: the object {digest} ({path}) is not there; run the stage that makes it again.")


def _corrupt(store: Store, path: str, digest: str, out: Any) -> InputCorrupt:
    # With its folder's listing: an output whose listing is in the store counts as made.
    names = dict.fromkeys((digest, out.hash_info.value))
    return InputCorrupt(
        f"{store.remote}: the object {digest} ({path}) is corrupt; nothing was computed from it. Run `python -m "
        f"workspace discard {' '.join(names)}`, which removes it, and the stage that makes it again."
    )


def _listed(out: Any) -> dict[str, str]:
    return {"/".join((out.def_path, *key)): str(info.value) for key, _, info in out.get_obj() or ()}
