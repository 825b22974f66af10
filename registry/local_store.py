"""The SQLite file of a local MLflow store: made under another name, so that a kill leaves none that is half made."""

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from clinprompt.errors import BadParams, ClinpromptError, InputCorrupt, InputMissing

_copies: "dict[Path, tuple[tempfile.TemporaryDirectory[str], int]]" = {}  # with the time of the copied store's change

# MLflow keeps absolute paths: (table, column) of those that begin with an artifact folder's.
_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)

# Where a store keeps what people put into it. The first is never empty in one that is whole.
_CONTENT = ("experiments", "runs", "registered_models", "model_versions", "logged_models")


def make_ready(store: Path, artifacts: Path) -> None:
    """Make the store when there is none, and anew when an earlier process died before its first row was written.

    Of several processes one makes it; the others wait and use its file.

    Raises:
        BadParams: the file is no SQLite database.
    """
    if store.exists() and _holds_something(store):
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    with _lock(store.parent):
        if store.exists():
            if _holds_something(store):  # another process has made it since
                return
            store.unlink()
        artifacts.mkdir(mode=0o700, exist_ok=True)
        part = store.with_name(f".{store.name}.{os.getpid()}.part")
        _remove_parts(store)
        try:
            _create(part, artifacts)
            with suppress(FileExistsError):
                os.link(part, store)  # unlike a rename, it never replaces a file that another program has made
        finally:
            part.unlink(missing_ok=True)


def is_writable(store: Path) -> bool:
    """Whether this process may change the store, beside which SQLite writes too; one that is not there may be made."""
    return not store.exists() or (os.access(store, os.W_OK) and os.access(store.parent, os.W_OK))


def check_writable(store: Path) -> None:
    """Refuse to change a store that can only be read.

    Raises:
        BadParams: this process may not write to it.
    """
    if not is_writable(store):
        raise BadParams(
            f"The registry {store} can only be read here, so nothing was changed. Run this where it may be written to, "
            "or name another registry in MLFLOW_TRACKING_URI."
        )


def readable_copy(store: Path) -> Path:
    """A copy, for this process alone, of a store that can only be read: MLflow takes none that it can't write to."""
    modified = store.stat().st_mtime_ns
    folder, copied = _copies.get(store.resolve(), (None, None))
    if folder is None or copied != modified:
        folder = tempfile.TemporaryDirectory(prefix="clinprompt-registry-")
        source = sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(Path(folder.name) / store.name)) as target:
            source.backup(target)
        _copies[store.resolve()] = (folder, modified)
    return Path(folder.name) / store.name


def follow_moved_folder(store: Path, root: Path) -> None:
    """Update a local store's absolute artifact paths after its folder was moved, copied or mounted elsewhere.

    Raises:
        InputMissing, InputCorrupt: the file can't be opened, or is damaged.
    """
    if not root.is_dir():
        return
    try:
        _follow(store, root)
    except sqlite3.Error as error:
        known = damage(store, error)
        raise known or error from error.__cause__


def _follow(store: Path, root: Path) -> None:
    with closing(sqlite3.connect(store, timeout=20)) as database, database:
        query = f"SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE '%/{root.name}'"  # noqa: S608
        try:
            locations = [row[0] for row in database.execute(query)]
        except sqlite3.OperationalError as error:  # a store whose tables are not made yet
            if "unable to open" in str(error):
                raise
            return
        for old in locations:
            new = root.as_uri() if old.startswith("file:") else str(root)
            for table, column in _PATHS if old != new else ():
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                    (new, len(old) + 1, len(old), old),
                )


def damage(store: Path | str, error: BaseException) -> ClinpromptError | None:
    """The error with a sentence for what SQLite, or what passed its words on, says of a file; None for all else."""
    text = str(error)
    if "malformed" in text or "file is not a database" in text or "no such table" in text:
        return InputCorrupt(
            f"The registry {store} is damaged. Put its back-up in its place, or move it away and promote again."
        )
    if "unable to open database file" in text:
        return InputMissing(f"The registry {store} can't be opened: it must be a file that this user may read.")
    return None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which leaves no file: a look at the store and what follows from it are one step."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(part: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    part.touch(mode=0o600)
    store = SqlAlchemyStore(f"sqlite:///{part.resolve()}", artifacts.resolve().as_uri())
    store.engine.dispose()


def _holds_something(store: Path) -> bool:
    """Whether any table that people fill has a row. A process that is just writing is waited for."""
    with closing(sqlite3.connect(store, timeout=20, isolation_level=None)) as database:
        try:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return any(
                database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608
                for table in tables.intersection(_CONTENT)
            )
        except sqlite3.OperationalError:  # locked, unreadable: MLflow itself says what is the matter
            return True
        except sqlite3.DatabaseError:
            raise BadParams(
                f"{store} is no SQLite database. Move it away, or name another file in MLFLOW_TRACKING_URI."
            ) from None


def _remove_parts(store: Path) -> None:
    """Remove what processes that are gone have left."""
    for part in store.parent.glob(f".{store.name}.*.part*"):
        pid = part.name.removeprefix(f".{store.name}.").partition(".")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            part.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # it runs, as another user
    return True
