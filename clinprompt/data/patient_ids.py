"""Pseudonyms of patients: HMAC-SHA256 with a key that lies outside the repository.

Record numbers can be enumerated: who has a list of possible ones finds them out from a hash without a key. The key
comes from the variable CLINPROMPT_PATIENT_KEY, or from the file that CLINPROMPT_PATIENT_KEY_FILE names, or from the
user's own file, which is made on first use. It is text of at least 32 characters, and is never logged or written.
"""

import errno
import hashlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from clinprompt.contract.variables import AIRFLOW, PATIENT_KEY, PATIENT_KEY_FILE
from clinprompt.errors import BadParams, InputMissing
from clinprompt.files import read_regular

log = logging.getLogger(__name__)

SHORTEST = 32  # characters of a key
_MOST = 1 << 16  # bytes of a key's file that are read
# A file can't be made there: no rights, read-only, no home, or a file system without links.
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EOPNOTSUPP)
_DIGITS = 16  # of a pseudonym, and of a key's fingerprint
_HOW = (
    "make one with `python -c 'import secrets; print(secrets.token_hex(32))'`, and keep a copy where passwords are kept"
)


def public_id(dataset: str, patient: str) -> str:
    """A patient's id hashed without a key, 16 hex digits: the same on every machine, different in each dataset."""
    return hashlib.sha256(f"{dataset}:{patient}".encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True)
class PatientKey:
    """The key of the pseudonyms; its text is never shown."""

    text: str = field(repr=False)

    def pseudonym(self, dataset: str, patient: str) -> str:
        """The name under which a patient appears in the manifest: 16 hex digits, different in each dataset."""
        return self._digest(f"patient:{dataset}:{patient}")

    @property
    def fingerprint(self) -> str:
        """16 hex digits by which two keys are told apart, and which tell nothing of the key."""
        return self._digest("fingerprint")

    def _digest(self, message: str) -> str:
        return hmac.new(self.text.encode(), message.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def patient_key() -> PatientKey:
    """The key, which is made where there is none yet and nobody has named another place.

    Raises:
        BadParams: it is too short or no text, or a scheduler's task has none: one made there would be lost with it.
        InputMissing: the file that was named does not exist, or the user's own can't be made.
        InputCorrupt: the file can't be read.
    """
    key = find_patient_key()
    if key is not None:
        return key
    file = key_file()
    if os.environ.get(AIRFLOW):
        raise BadParams(
            f"This dataset has patients, and there is no key for their ids: set {PATIENT_KEY} for the tasks, the same "
            f"one on every worker, or {PATIENT_KEY_FILE} to a file that they can read; {_HOW}."
        )
    try:
        is_new = _make(file)
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise InputMissing(
                f"The key for patients' ids can't be kept in {file} ({error.strerror}); set {PATIENT_KEY}, or "
                f"{PATIENT_KEY_FILE} to a file that is there; {_HOW}."
            ) from None
        raise
    if is_new:
        log.warning(
            "A key for patients' ids was made: %s. Keep a copy where passwords are kept: with another key patients get "
            "other ids.",
            file,
        )
    return _checked(_read(file), str(file))


def find_patient_key() -> PatientKey | None:
    """The key where there is one; nothing is made. Raises as `patient_key`."""
    text = os.environ.get(PATIENT_KEY)
    if text:
        return _checked(text, PATIENT_KEY)
    file, is_named = key_file(), bool(os.environ.get(PATIENT_KEY_FILE))
    if not file.exists():
        if is_named:
            raise InputMissing(f"{PATIENT_KEY_FILE} names {file}, which does not exist; {_HOW}.")
        return None
    if not is_named and file.stat().st_mode & 0o077:  # a mounted secret's rights are those of its mount
        log.warning("%s, the key of patients' ids, can be read by others: chmod 600 %s", file, file)
    return _checked(_read(file), str(file))


def key_file() -> Path:
    """Where the key's file lies, or will lie.

    Raises:
        InputMissing: it is the user's own, and this user has no home.
    """
    named = os.environ.get(PATIENT_KEY_FILE)
    try:
        if named:
            return Path(named).expanduser()
        config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        if not config.is_absolute():  # the standard says to ignore it; the key would lie in the folder one works in
            config = Path("~/.config").expanduser()
        return config / "clinprompt" / "patient.key"
    except RuntimeError:
        raise InputMissing(
            f"This user has no home for the key of patients' ids; set {PATIENT_KEY}, or {PATIENT_KEY_FILE} to a file."
        ) from None


def _read(file: Path) -> str:
    try:
        return read_regular(file, _MOST).decode("utf-8")
    except UnicodeDecodeError:
        raise BadParams(f"{file}: the key for patients' ids must be text; {_HOW}.") from None


def _checked(text: str, where: str) -> PatientKey:
    key = text.removeprefix("\ufeff").strip()  # the mark that editors on Windows put first
    if len(key) < SHORTEST:
        raise BadParams(
            f"{where}: the key for patients' ids must have at least {SHORTEST} characters, found {len(key)}; {_HOW}."
        )
    if not key.isprintable():  # such as the zeros that a crash leaves, which are no secret
        raise BadParams(f"{where}: the key for patients' ids must be one line of printable characters; {_HOW}.")
    return PatientKey(key)


def _make(file: Path) -> bool:
    """Write a new key unless there is one; of several processes at once one does, and all read the same file."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(secrets.token_hex(32) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.link(part, file)  # unlike a rename, it never replaces a key
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True
