"""Connect to the MLflow tracking server or local store, with short timeouts, little logging and clear errors."""

import fcntl
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.errors import BadParams, InputMissing, ServiceDown
from registry.local_store import check_writable, damage, follow_moved_folder, is_writable, make_ready, readable_copy

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = "mlartifacts"  # beside the local store
_SQLITE = "sqlite:///"
_SCHEMES = (_SQLITE, "http://", "https://", "postgresql", "mysql", "mssql")  # those of databases may name a driver
_VARIABLE = "MLFLOW_TRACKING_URI"

# What says that trying later may help: statuses; base classes of requests, urllib3, botocore and Python itself, by name
# since not all are installed or loaded; and MLflow's own words.
_LATER_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_CONNECTION_ERRORS = {"RequestException", "HTTPError", "HTTPClientError", "ConnectionError", "TimeoutError"}
_AWAY_PHRASES = ("failed with exception", "failed with timeout exception", "too many 50", "database is locked")

# A variable that the user has set wins.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
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


def shown_uri() -> str:
    """The address for people: without a user's name and password."""
    return _without_password(tracking_uri())


def local_store() -> Path | None:
    """The SQLite file of the tracking store; None for a server or another database.

    Raises:
        InputMissing: a folder is there.
    """
    uri = tracking_uri()
    if not uri.startswith(_SQLITE):
        return None
    store = Path(uri.removeprefix(_SQLITE))
    if store.is_dir():
        raise InputMissing(f"{shown_uri()} is a folder, and the registry must be a file; name another.")
    return store


def artifact_root() -> Path | None:
    """The absolute folder beside the SQLite file that holds the artifacts; None where a server decides."""
    store = local_store()
    return store.resolve().with_name(ARTIFACTS) if store else None


def connect() -> "MlflowClient":
    """A client of the tracking server or store. MLflow's import takes a second or two, so it is not at the top.

    A local store that this process may only read is read from a copy; whoever writes asks
    `check_local_store_writable` before.

    Raises:
        BadParams: the address is neither a server's nor a database's.
    """
    if not tracking_uri().startswith(_SCHEMES):
        raise BadParams(
            f"MLFLOW_TRACKING_URI is {shown_uri()!r}: name a server, http://host:port, or a database, as {DEFAULT_URI}."
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    store, root = local_store(), artifact_root()
    if store is not None and not is_writable(store):
        store = readable_copy(store)
    if store is not None and root is not None and store.exists():
        follow_moved_folder(store, root)
    import mlflow

    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    with service_errors():
        if store is not None and root is not None:
            make_ready(store, root)
        # Absolute: MLflow keeps one connection per address, whatever the working directory becomes.
        _point_mlflow_to(f"{_SQLITE}{store.resolve()}" if store else tracking_uri())
        return mlflow.MlflowClient()


def _point_mlflow_to(uri: str) -> None:
    """Set MLflow's tracking address and leave the user's variable, which MLflow would overwrite, as it is."""
    import mlflow

    previous = os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(uri)
    if previous is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = previous


@contextmanager
def service_errors() -> Iterator[None]:
    """Turn a server that is away, or that refuses, into an error with its address.

    Raises:
        ServiceDown: no answer, an answer that says to try later, or a database that is locked; also of the store that
            holds the artifacts.
        BadParams: the server wants other credentials, or doesn't accept the host's name; a driver is missing.
            the database is another release's.
        InputMissing: the artifact store has no such file, or the local store can't be opened.
        InputCorrupt: the local store is damaged.
    """
    from mlflow.exceptions import MlflowException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ModuleNotFoundError as error:
        raise BadParams(f"{shown_uri()} needs the Python package {error.name!r}, which is not installed.") from None
    except (MlflowException, OSError, HTTPError, *_object_store_errors()) as error:
        if (store := local_store()) is not None and (known := damage(store, error)) is not None:
            raise known from None
        if "out-of-date database schema" in str(error):
            raise BadParams(
                f"{shown_uri()} was made by another release of MLflow. Back it up and run `mlflow db upgrade` on it, "
                "or name another one in MLFLOW_TRACKING_URI."
            ) from None
        if is_away(error):
            raise _down(error) from None
        text, status = str(error), next(filter(None, map(_status, causes(error))), None)
        code = getattr(error, "error_code", None)
        if code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or status in (401, 403):
            raise BadParams(f"{shown_uri()} refused the request: {_first_line(text)}") from None
        if status == 404 and not isinstance(error, MlflowException):
            raise InputMissing(f"{shown_uri()} has no such file: {_first_line(text)}") from None
        raise


def is_away(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a server does not answer or asks to try later."""
    for cause in causes(error):
        status, text = _status(cause), str(cause)
        if status is not None:
            return status in _LATER_STATUSES
        if not _CONNECTION_ERRORS.isdisjoint(base.__name__ for base in type(cause).__mro__):
            return True
        if getattr(cause, "error_code", None) == "TEMPORARILY_UNAVAILABLE" or any(
            phrase in text for phrase in _AWAY_PHRASES
        ):
            return True
    return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of requests, MLflow or botocore carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return int(status) if status else None
    code = getattr(response, "status_code", None)
    if code is None:
        match = re.search(r"failed with error code (\d{3})", str(error))
        code = int(match[1]) if match else None
    return code


def _object_store_errors() -> tuple[type[Exception], ...]:
    """The base classes of the errors of boto, when it is what the artifacts go through."""
    loaded = (("botocore.exceptions", ("BotoCoreError", "ClientError")), ("boto3.exceptions", ("Boto3Error",)))
    return tuple(
        getattr(sys.modules[module], name) for module, names in loaded if module in sys.modules for name in names
    )


def check_local_store_writable() -> None:
    """Refuse to change a local store that can only be read; a server says so itself.

    Raises:
        BadParams: this process may not write to it.
    """
    store = local_store()
    if store is not None:
        check_writable(store)


@contextmanager
def promotion_lock() -> Iterator[bool]:
    """Hold the local store's lock, so that one process at a time looks and then writes; whether there is such a lock.

    It ends with its process, however that ends. A server has none.
    """
    store = local_store()
    if store is None:
        yield False
        return
    check_local_store_writable()
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.with_name(f"{store.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield True


def insert(send: Callable[..., None], *arguments: object) -> None:
    """Have a server keep what may be new to it, by a client's method: a tag, an alias, a dataset.

    It looks for that and then inserts it, so that of two clients that send the same at once it refuses one. For that
    one it is there when it is sent again.
    """
    from mlflow.exceptions import MlflowException

    try:
        send(*arguments)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        send(*arguments)


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The experiment's id; it is made, with the local store's artifact folder, when there is none."""
    from mlflow.exceptions import MlflowException

    experiment, root = client.get_experiment_by_name(name), artifact_root()
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=root.as_uri() if root else None))
        except MlflowException as error:  # another promotion may have made it since
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id)


def _down(error: Exception) -> ServiceDown:
    return ServiceDown(
        f"The MLflow server at {shown_uri()} does not answer ({_first_line(str(error))}). Start it, or unset "
        "MLFLOW_TRACKING_URI to use a local file."
    )


def _first_line(text: str) -> str:
    return _without_password(text.strip().splitlines()[0])[:200] if text.strip() else "no reason given"


def _without_password(text: str) -> str:
    """A text whose addresses tell neither a user nor what a database's options keep; passwords may have any sign."""
    hidden = re.sub(r"//(?!/)[^\s'\"]*@", "//", text)
    return re.sub(
        r"(?i)([?&][^=&\s]*(?:password|passwd|pwd|token|secret|key|user)[^=&\s]*)=[^&\s'\"]+", r"\1=…", hidden
    )
