"""Who may read what a run writes: this user alone, or who CLINPROMPT_UMASK lets, as 027 for the user's group."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinprompt.contract.variables import UMASK
from clinprompt.errors import BadParams

_PRIVATE = 0o077


def umask() -> int:
    """The bits that new files and folders don't get.

    Raises:
        BadParams: CLINPROMPT_UMASK is no octal number up to 777, or would keep this user out.
    """
    text = os.environ.get(UMASK)
    if not text:
        return _PRIVATE
    if not re.fullmatch("0?0?[0-7]{1,2}", text):
        raise BadParams(f"{UMASK} must be an octal number from 000 to 077, as 027, found {text[:40]!r}.")
    return int(text, 8)


@contextmanager
def own_umask() -> Iterator[None]:
    """Give what is written inside no more rights than `umask` leaves."""
    before = os.umask(umask())
    try:
        yield
    finally:
        os.umask(before)


def restrict(folder: Path) -> None:
    """Take from a folder of this user the rights that `umask` does not leave; DVC makes its folders with more.

    What lies in a folder that others can't enter is out of their reach, whatever its own rights. A folder that all
    share, as /tmp (its sticky bit tells), stays as it is.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    facts = folder.stat()
    mode = stat.S_IMODE(facts.st_mode)
    if mode & umask() and not mode & stat.S_ISVTX and facts.st_uid == os.getuid():
        folder.chmod(mode & ~umask())
