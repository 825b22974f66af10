"""Where the MLflow tracking server or store is, and how it is spoken to: short waits, few words, clear errors."""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.errors import BadParams, ServiceDown

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"  # beside the local store
_SQLITE = "sqlite:///"
_VARIABLE = "MLFLOW_TRACKING_URI"

# A variable that the user has set wins.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
_QUIET = {
    "alembic": logging.WARNING,
    "mlflow": logging.WARNING,
    "mlflow.utils.environment": logging.ERROR,  # an environment without pip is none of our users' troubles
}


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or a SQLite file in the working directory."""
    return os.environ.get(_VARIABLE) or DEFAULT_URI


def local_store() -> Path | None:
    """The SQLite file of the tracking store; None for a server or another database."""
    uri = tracking_uri()
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def artifact_root() -> Path | None:
    """The absolute folder beside the SQLite file that holds the artifacts; None where a server decides."""
    store = local_store()
    return store.resolve().with_name(ARTIFACTS) if store else None


def connect() -> "MlflowClient":
    """A client of the tracking server or store. MLflow's import takes a second or two, so it is not at the top."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    store = local_store()
    if store is not None and store.exists():
        _follow_moved_folder(store)
    import mlflow

    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    with speaking():
        # Absolute: MLflow keeps one connection per address, whatever the working directory becomes.
        _point_mlflow_to(f"{_SQLITE}{store.resolve()}" if store else tracking_uri())
        return mlflow.MlflowClient()


def _point_mlflow_to(uri: str) -> None:
    """Set MLflow's tracking address and leave the user's variable, which MLflow would overwrite, as it is."""
    import mlflow

    before = os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = before


@contextmanager
def speaking() -> Iterator[None]:
    """Turn a server that is away, or that refuses, into an error with its address.

    Raises:
        ServiceDown: no answer, an answer that says to try later, or a database that is locked.
        BadParams: the server wants other credentials, or doesn't accept the host's name.
    """
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except requests.exceptions.RequestException as error:
        raise _down(error) from None
    except MlflowException as error:
        text, code = str(error), error.error_code
        if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or "error code 403" in text or "error code 401" in text:
            raise BadParams(f"{tracking_uri()} refused the request: {_first_line(text)}") from None
        away = isinstance(error.__context__, requests.exceptions.RequestException)
        away = away or "failed with exception" in text or "too many 50" in text or "error code 50" in text
        if away or code == "TEMPORARILY_UNAVAILABLE" or "database is locked" in text:
            raise _down(error) from None
        raise


@contextmanager
def promotion_lock() -> Iterator[None]:
    """Hold the local store's lock: aliases are last-writer-wins, so one promotion at a time looks and then sets."""
    store = local_store()
    if store is None:
        yield
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.with_name(f"{store.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The experiment's id; it is made, with the local store's artifact folder, when there is none."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    root = artifact_root()
    return str(client.create_experiment(name, artifact_location=root.as_uri() if root else None))


def _down(error: Exception) -> ServiceDown:
    return ServiceDown(
        f"The MLflow server at {tracking_uri()} does not answer ({_first_line(str(error))}). Start it, or unset "
        "MLFLOW_TRACKING_URI to use a local file."
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"


# MLflow keeps absolute paths: (table, column) of those that begin with an artifact folder's.
_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def _follow_moved_folder(store: Path) -> None:
    """Point the local store to the artifacts beside it, after its folder was moved, copied or mounted elsewhere."""
    root = store.resolve().with_name(ARTIFACTS)
    if not root.is_dir():
        return
    with closing(sqlite3.connect(store, timeout=20)) as database, database:
        query = f"SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE '%/{ARTIFACTS}'"  # noqa: S608
        try:
            known = [row[0] for row in database.execute(query)]
        except sqlite3.OperationalError:  # a store whose tables are not made yet
            return
        for old in known:
            new = root.as_uri() if old.startswith("file:") else str(root)
            for table, column in _PATHS if old != new else ():
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608
                    (new, len(old) + 1, len(old), old),
                )
