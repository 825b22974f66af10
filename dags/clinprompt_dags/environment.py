"""What a task's environment is made of: the worker's own variables and Airflow's connections."""

import os
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from clinprompt.contract.variables import ENDPOINT_KEY, JOURNAL, JUDGE_KEY, PATIENT_KEY, PREFIX, SIGNING_KEY, STORE

STORE_CONNECTION = "clinprompt_store"
MLFLOW_CONNECTION = "clinprompt_mlflow"
# The same servers, for the tasks that change the registry.
PROMOTER_STORE_CONNECTION = "clinprompt_promoter_store"
PROMOTER_MLFLOW_CONNECTION = "clinprompt_promoter_mlflow"

# What a process of the local runner may see of the worker's environment.
_NAMES = frozenset(
    {"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "USER"}
    | {"REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
)
_PREFIXES = ("AWS_", PREFIX, "CUDA_", "DVC_", "HF_", "MKL_", "MLFLOW_", "NVIDIA_", "OMP_", "TORCH_")
# What travels into a container: the services, not the worker's own folders.
_SERVICES = ("AWS_", "MLFLOW_")
_NAMED = (STORE, PATIENT_KEY, ENDPOINT_KEY, JUDGE_KEY)
_PROMOTERS = (JOURNAL,)  # of the tasks that change the registry alone
_SECRET = ("KEY", "PASSWORD", "TOKEN", "SECRET")


def local_environment(environ: Mapping[str, str], *, promotes: bool, signs: bool) -> dict[str, str]:
    """The worker's variables that concern a component; Airflow's own and Python's are left out.

    Args:
        promotes: whether the task may change the registry.
        signs: whether it may have the key that models are signed with.
    """
    withheld = {*(() if promotes else _PROMOTERS), *(() if signs else (SIGNING_KEY,))}
    own = {k: v for k, v in environ.items() if k in _NAMES or k.startswith(_PREFIXES)}
    return {k: v for k, v in own.items() if k not in withheld}


def services(*, promotes: bool = False) -> tuple[dict[str, str], dict[str, str]]:
    """The variables that name the store and the registry, and those that hold secrets: theirs, and the keys.

    Airflow's connections `clinprompt_store` and `clinprompt_mlflow` win over the worker's environment.

    Args:
        promotes: whether the task may change the registry: with the logins of the connections
            `clinprompt_promoter_store` and `clinprompt_promoter_mlflow`, where they are.
    """
    names = (*_NAMED, *(_PROMOTERS if promotes else ()))
    settings = {k: v for k, v in os.environ.items() if k.startswith(_SERVICES) or k in names}
    settings |= _store(find_connection(STORE_CONNECTION)) | _mlflow(find_connection(MLFLOW_CONNECTION))
    if promotes:
        settings |= _store(find_connection(PROMOTER_STORE_CONNECTION))
        settings |= _mlflow(find_connection(PROMOTER_MLFLOW_CONNECTION))
    private = {k: v for k, v in settings.items() if is_secret(k, v)}
    return {k: v for k, v in settings.items() if k not in private}, private


def is_secret(name: str, value: str) -> bool:
    """Whether a variable must not be shown: by its name, or for a password in a URL."""
    return any(word in name for word in _SECRET) or ("://" in value and "@" in value)


def base_url(connection: Connection) -> str:
    """The URL that a connection of type http names: its host may be a whole URL; the schema is http or https."""
    host = connection.host or "localhost"
    if "://" in host:
        return host.rstrip("/")
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'http'}://{host}{port}"


def find_connection(name: str) -> Connection | None:
    """A connection, or None where nobody made it."""
    try:
        connection: Connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    return connection


def _store(connection: Connection | None) -> dict[str, str]:
    if connection is None:
        return {}
    extra: dict[str, Any] = connection.extra_dejson
    return _present(
        {
            STORE: extra.get("store"),
            "AWS_ACCESS_KEY_ID": connection.login,
            "AWS_SECRET_ACCESS_KEY": connection.password,
            "AWS_ENDPOINT_URL": extra.get("endpoint_url"),
            "AWS_DEFAULT_REGION": extra.get("region_name"),
        }
    )


def _mlflow(connection: Connection | None) -> dict[str, str]:
    if connection is None:
        return {}
    return _present(
        {
            "MLFLOW_TRACKING_URI": base_url(connection),
            "MLFLOW_TRACKING_USERNAME": connection.login,
            "MLFLOW_TRACKING_PASSWORD": connection.password,
        }
    )


def _present(values: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}
