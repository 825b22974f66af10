"""Files that are either complete or absent: write to a temporary name beside the target, then rename."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.os_errors import explained

_CHUNK = 1 << 20


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder; nothing happens when it is absent."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """The temporary name under which `path` is written; the same for each attempt, so that leftovers are found.

    Raises:
        BadParams: the path ends with no name, as "." and "/" do.
    """
    if path.name in ("", ".."):
        raise BadParams(f"{str(path)!r} ends with no name that a file or folder could be made by; name another path.")
    return path.with_name(f".{path.name}.partial")


def check_place(path: Path) -> None:
    """See that this user can make a file or folder at a path, whose folders need not be there; nothing is left of it.

    Raises:
        BadParams: the path ends with no name.
        InputMissing: nothing can be made there.
    """
    try:
        partial_path(path).exists()  # the longest name that is needed
        above = path.absolute().parent
        while not os.path.lexists(above):
            above = above.parent
        with tempfile.TemporaryDirectory(prefix=".place.", dir=above):
            pass
    except OSError as error:
        # A name of ours would tell nobody anything.
        told = explained(OSError(error.errno, error.strerror, str(path)))
        raise told or InputMissing(
            f"nothing can be made at {path} ({error.strerror}); choose another place for what is written."
        ) from None


def check_new(path: Path) -> None:
    """See that there is nothing at a path, and that something can be made there.

    Raises:
        BadParams: something is there, or the path ends with no name.
        InputMissing: nothing can be made there.
    """
    if os.path.lexists(path):
        raise BadParams(f"{path} exists; name a new folder.")
    check_place(path)


def publish(partial: Path, path: Path) -> None:
    """Rename the finished `partial` file or folder to `path`, replacing what is there; no file replaces a folder.

    Raises:
        IsADirectoryError: a file, where a folder is.
    """
    if path.is_dir() and not path.is_symlink():
        if not partial.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        # A folder can't be replaced in one step: move the old one aside so that `path` never holds a mixture.
        old = path.with_name(f".{path.name}.old")
        remove(old)
        path.rename(old)
        partial.rename(path)
        remove(old)
    else:
        os.replace(partial, path)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file or folder to; on success it becomes `path`, on an error it vanishes.

    Raises:
        BadParams: the path ends with no name.
        InputMissing: nothing can be made there.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        yield partial
        publish(partial, path)
    except FileNotFoundError:
        check_place(path)  # /proc says that what can't be made there is missing
        raise
    finally:
        remove(partial)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def to_json(value: Any) -> str:
    """JSON with sorted keys and a final newline: equal values give equal bytes. NaN is refused."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `to_json(value)` atomically."""
    write_text(path, to_json(value))


def read_regular(path: Path, most: int = -1) -> bytes:
    """The bytes of a regular file, at most the first `most` of them; a pipe that nobody writes to is not waited for.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is a folder, pipe or device, links lead in a circle, or this user may not read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist.") from None
    except OSError as error:
        raise InputCorrupt(f"{path} can't be read ({os.strerror(error.errno or 0)}).") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputCorrupt(f"{path} is no regular file, but a folder, a pipe or a device.")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is not JSON, or can't be read.
    """
    try:
        return json.loads(read_regular(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputCorrupt(f"{path} is not valid JSON ({error}). Delete it and run again.") from None


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_folder(path: Path) -> str:
    """SHA-256 over the sorted (relative path, SHA-256) pairs of the files below `path`; names and bytes both count."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {sha256_file(file)}\n" for file in files]
    return sha256_bytes("".join(lines).encode())
