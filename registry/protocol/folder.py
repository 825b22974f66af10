"""A store in a folder: one machine's, or one that several machines mount and that has POSIX locks."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinprompt.errors import BadParams
from clinprompt.files import sha256_bytes
from registry.protocol.store import Stored

_LOCK = ".lock"


class FolderStore:
    """Objects as files. A file is complete or absent: it is written under another name, then linked or renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> Stored | None:
        """The object, or None."""
        try:
            content = (self.folder / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stored(content, sha256_bytes(content))

    def create(self, key: str, content: bytes) -> str | None:
        """Write an object that is not there."""
        with self._written(key, content) as part:
            try:
                os.link(part, self.folder / key)
            except FileExistsError:
                return None
        return sha256_bytes(content)

    def replace(self, key: str, content: bytes, etag: str) -> str | None:
        """Write over the version with this etag; the lock makes the look and the rename one step."""
        with self._written(key, content) as part, self._locked():
            found = self.read(key)
            if found is None or found.etag != etag:
                return None
            os.replace(part, self.folder / key)
        return sha256_bytes(content)

    def list(self, prefix: str) -> list[str]:
        """The keys that begin with a prefix, sorted."""
        files = (path for path in self.folder.rglob("*") if not path.name.startswith(".") and path.is_file())
        keys = (path.relative_to(self.folder).as_posix() for path in files)
        return sorted(key for key in keys if key.startswith(prefix))

    @contextmanager
    def _written(self, key: str, content: bytes) -> Iterator[Path]:
        """The content in a file beside the object's, safe from a loss of power; what is left of it is removed."""
        target = self.folder / key
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield part
            _sync(target.parent)
        except PermissionError:
            raise BadParams(f"The registry's journal {self.folder} can't be written to by this user.") from None
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
