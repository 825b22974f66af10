"""Temporary folders that a kill does not leave for ever: the next process that makes one removes those of the gone."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder, with its name in `name`, which this process holds until it is cleaned up or collected.

    It is held by a lock on the folder itself, which ends with the process however that ends; process ids would mean
    nothing in another container. Where a file system has no such locks, nothing is swept.

    Args:
        kind: what it is for, as "model"; folders of one kind are swept together.
        parent: where it is made; by default in the system's temporary folder.
    """

    def __init__(self, kind: str, parent: str | None = None) -> None:
        prefix = f"clinprompt-{kind}."
        _sweep(Path(parent or tempfile.gettempdir()), prefix)
        super().__init__(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
        while not self._hold():  # another process swept it before it was held
            os.makedirs(self.name, mode=0o700, exist_ok=True)

    def _hold(self) -> bool:
        try:
            descriptor = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _is_at(descriptor, Path(self.name)):
            os.close(descriptor)
            return False
        weakref.finalize(self, os.close, descriptor)
        return True


def _sweep(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another user's, gone by now, or no locks here
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.getuid() and _is_at(descriptor, folder):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
