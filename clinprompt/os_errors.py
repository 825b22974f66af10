"""What the operating system refuses, as errors with a sentence: rights, space, memory, limits.

Python's own errors are known by their number, those of libraries (safetensors, SQLite, Arrow) by their message.
"""

import errno
import os

from clinprompt.errors import ClinpromptError, InputMissing, OutOfResources

_SPACE = "free some space and run the same command again."
_LIMIT = "raise the limit (`ulimit`) and run the same command again."
_RESOURCES = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("the disk is full", _SPACE),  # for this user
    errno.EFBIG: ("a file would become larger than is allowed", _LIMIT),
    errno.EMFILE: ("too many files are open", _LIMIT),
    errno.ENFILE: ("too many files are open", _LIMIT),
    errno.ENOMEM: ("the memory is too small", "free some, or lower the batch sizes, and run the same command again."),
    errno.EBUSY: ("a file or folder is in use", "run the same command again when it no longer is."),
    errno.ESTALE: ("a network folder was mounted anew", "run the same command again."),
    errno.EIO: ("the disk can't be read or written", "look at the system's log, then run the same command again."),
}
_RIGHTS = "give this user the right to read and write there."
_PLACES = {
    errno.EACCES: ("permission denied", _RIGHTS),
    errno.EPERM: ("not permitted", _RIGHTS),
    errno.EROFS: ("the file system is read-only", "choose another place for what is written."),
    errno.ELOOP: ("links that point at each other", "remove them."),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one."),
    errno.EISDIR: ("a folder where a file is expected", "move it away."),
    errno.EEXIST: ("a file where a folder is expected", "move it away."),
    errno.ENOLCK: ("the file system has no locks", "choose another place for what is written."),
    errno.ENOTDIR: ("a file where a folder is expected", "move it away."),
}
_PHRASES = {
    "No space left on device": errno.ENOSPC,
    "disk is full": errno.ENOSPC,
    "File too large": errno.EFBIG,
    "Cannot allocate memory": errno.ENOMEM,
    "disk I/O error": errno.EIO,  # SQLite's, of a limit on files too
    "Read-only file system": errno.EROFS,
    "attempt to write a readonly database": errno.EACCES,
    "Permission denied": errno.EACCES,
    "Symlink loop": errno.ELOOP,  # pathlib's, until Python 3.13
}


def explained(error: BaseException) -> ClinpromptError | None:
    """The error with a sentence for what the operating system refused; None where it is something else, as a bug."""
    number = _number(error)
    name = getattr(error, "filename", None) if isinstance(error, OSError) else None
    where = f": {os.fsdecode(name)}" if isinstance(name, str | bytes | os.PathLike) else ""
    if number in _RESOURCES:
        what, advice = _RESOURCES[number]
        return OutOfResources(f"{what}{where}; {advice}")
    if number in _PLACES:
        what, advice = _PLACES[number]
        return InputMissing(f"{what}{where or f' ({_line(error)})'}; {advice}")
    return None


def _number(error: BaseException) -> int | None:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno in (*_RESOURCES, *_PLACES):
        return error.errno
    return next((number for phrase, number in _PHRASES.items() if phrase in str(error)), None)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
