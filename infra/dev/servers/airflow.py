"""Airflow's parts: their commands and settings, and the pools and connections that the DAGs need."""

import json
import time
from pathlib import Path
from typing import Any

from clinprompt.errors import ServiceDown
from infra.dev.servers.config import REGION, ROOT, USERS, Config, private
from infra.dev.servers.processes import environment, run
from infra.dev.servers.rest import Airflow, heartbeat_after
from infra.dev.servers.web import RestError, answers

BIN = ROOT / ".venv-airflow" / "bin"
POOLS = {"gpu": 2, "promotion": 1}
_CELERY_SLOTS = 2

_SETTINGS = {
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__PARALLELISM": "4",
    "API__WORKERS": "1",
    "CELERY__WORKER_CONCURRENCY": str(_CELERY_SLOTS),
    "CELERY__OPERATION_TIMEOUT": "10",  # a busy machine needs more than the default second
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    # What failed is noticed in seconds instead of minutes.
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}


def settings(config: Config) -> dict[str, str]:
    """The variables of every Airflow process."""
    home, secrets, url = config.folder / "airflow", config.secrets, config.url("airflow")
    database = config.database("airflow", "postgresql+psycopg2")
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    bundles = [{"name": name, "classpath": local, "kwargs": {"path": path}} for name, path in config.dags.items()]
    own = _SETTINGS | {
        "CORE__EXECUTOR": {"celery": "CeleryExecutor", "local": "LocalExecutor"}[config.executor],
        "CORE__DAGS_FOLDER": next(iter(config.dags.values())),
        "CORE__FERNET_KEY": secrets["fernet"],
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "DATABASE__SQL_ALCHEMY_CONN": database,
        "API__HOST": "127.0.0.1",
        "API__PORT": str(config.ports["airflow"]),
        "API__BASE_URL": url,
        "API__SECRET_KEY": secrets["api"],
        "API_AUTH__JWT_SECRET": secrets["jwt"],
        "LOGGING__BASE_LOG_FOLDER": str(config.folder / "logs" / "tasks"),
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(config.folder / "logs" / "dag-files"),
        "CELERY__BROKER_URL": f"redis://:{secrets['redis']}@127.0.0.1:{config.ports['redis']}/0",
        "CELERY__RESULT_BACKEND": f"db+{database}",
    }
    path = f"{BIN}:{environment()['PATH']}"
    prefixed = {f"AIRFLOW__{key}": value for key, value in own.items()}
    return environment({"AIRFLOW_HOME": str(home), "PATH": path}, prefixed, config.settings)


def command(part: str) -> list[str]:
    """The command of a part; logs are read from disk, so nothing serves them on all interfaces."""
    arguments = {
        "api-server": ["api-server"],
        "scheduler": ["scheduler", "--skip-serve-logs"],
        "dag-processor": ["dag-processor"],
        "triggerer": ["triggerer", "--skip-serve-logs"],
        "worker": ["celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip"],
    }[part]
    return [str(BIN / "airflow"), *arguments]


def migrate(config: Config) -> None:
    """Bring Airflow's database to this version, and write down its users' passwords."""
    passwords = {user: config.secrets[f"user-{user}"] for user in USERS}
    private(config.folder / "airflow" / "passwords.json", json.dumps(passwords) + "\n")
    run([str(BIN / "airflow"), "db", "migrate"], settings(config), config.folder / "logs" / "airflow-migrate.log")


def client(config: Config, user: str = "admin") -> Airflow:
    """The REST API as one of the users admin, operator and viewer."""
    return Airflow(config.url("airflow"), user, config.secrets[f"user-{user}"])


def set_up(config: Config) -> None:
    """Make the pools and connections that the DAGs use, where they are missing."""
    api, keys = client(config), config.s3("store")
    pools = {pool["name"] for pool in api.call("GET", "/pools", limit=1000)["pools"]}
    for name in POOLS.keys() - pools:
        api.set_pool(name, POOLS[name])
    store = {"endpoint_url": config.url("s3"), "region_name": REGION, "store": config.components["CLINPROMPT_STORE"]}
    new_connections: dict[str, dict[str, Any]] = {
        "clinprompt_store": {
            "kind": "aws",
            "login": keys["AWS_ACCESS_KEY_ID"],
            "password": keys["AWS_SECRET_ACCESS_KEY"],
            "extra": json.dumps(store),
        }
    }
    for name, port in {"clinprompt_mlflow": "mlflow", "clinprompt_alerts": "alerts"}.items():
        new_connections[name] = {"kind": "http", "host": "127.0.0.1", "schema": "http", "port": config.ports[port]}
    connections = {entry["connection_id"] for entry in api.call("GET", "/connections", limit=1000)["connections"]}
    for name in new_connections.keys() - connections:
        api.set_connection(name, **new_connections[name])


def ready(part: str, config: Config, since: float) -> bool:
    """Whether a part answers, or has given a sign of life since a time (in seconds since 1970)."""
    if part == "api-server":
        return answers(f"{config.url('airflow')}/api/v2/monitor/health")
    if part == "worker":
        return _worker_ready(config.folder / "logs" / "worker.log", since)
    try:
        return heartbeat_after(client(config).health(), part, since)
    except (RestError, ServiceDown):
        return False


def _worker_ready(log: Path, since: float) -> bool:
    if log.stat().st_mtime < since:
        return False
    started = log.read_text(errors="replace").rpartition(START)[2]
    return " ready." in started


START = "--- started "


def mark_start(log: Path) -> None:
    """Write a line into a log from which this start's lines can be told from an older one's."""
    with log.open("a") as file:
        file.write(f"{START}{time.strftime('%Y-%m-%d %H:%M:%S')}\n")
