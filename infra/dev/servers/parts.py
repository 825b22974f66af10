"""What each part of a stack is: how it is made ready to start, started, and seen to be up."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clinprompt.errors import InputMissing
from infra.dev.servers import airflow, ceph, databases
from infra.dev.servers.config import ROOT, Config
from infra.dev.servers.processes import environment, unprivileged
from infra.dev.servers.web import answers

VENV = ROOT / ".venv" / "bin"
MIGRATE = "migrate"  # not a server: brings Airflow's database up to date, once per start of everything
_BINARIES = ("initdb", "redis-server", "radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")


def _nothing(config: Config) -> None:
    """For parts that need no preparation."""


def _own_variables(config: Config) -> dict[str, str]:
    return environment(config.settings)


def _at_once(config: Config, since: float) -> bool:
    return True


@dataclass(frozen=True)
class Part:
    """One server. `ready` is asked with the time at which the server was started."""

    command: Callable[[Config], list[str]]
    ready: Callable[[Config, float], bool] = _at_once
    needs: tuple[str, ...] = ()
    prepare: Callable[[Config], None] = _nothing
    after: Callable[[Config], None] = _nothing  # once it is up
    env: Callable[[Config], dict[str, str]] = _own_variables
    unprivileged: bool = False
    stop: signal.Signals = signal.SIGTERM
    attempts: int = 1  # to start it


def _mlflow_command(config: Config) -> list[str]:
    port = str(config.ports["mlflow"])
    hosts = f"127.0.0.1:{port},localhost:{port}"
    address = ["--host", "127.0.0.1", "--port", port, "--allowed-hosts", hosts, "--workers", "1"]
    return [str(VENV / "mlflow"), "server", *address, "--artifacts-destination", "s3://mlflow/artifacts"]


def _mlflow_env(config: Config) -> dict[str, str]:
    own = {
        "PATH": f"{VENV}:{environment()['PATH']}",
        "MLFLOW_BACKEND_STORE_URI": config.database("mlflow", "postgresql+psycopg2"),
        "MLFLOW_S3_ENDPOINT_URL": config.url("s3"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_MODEL_CATALOG_URI": "",
    }
    return environment(own, config.s3("mlflow"), config.settings)


def _mlflow_ready(config: Config, since: float) -> bool:
    return answers(config.url("mlflow") + "/health")


def _alerts_command(config: Config) -> list[str]:
    script = Path(__file__).with_name("alerts.py")
    return [sys.executable, str(script), str(config.ports["alerts"]), str(config.folder / "alerts.jsonl")]


def _alerts_ready(config: Config, since: float) -> bool:
    return answers(config.url("alerts"))


def _airflow(name: str, needs: tuple[str, ...] = (MIGRATE,), after: Callable[[Config], None] = _nothing) -> Part:
    return Part(
        lambda config: airflow.command(name),
        partial(airflow.ready, name),
        needs,
        after=after,
        env=airflow.settings,
    )


PARTS: dict[str, Part] = {
    "postgres": Part(
        databases.postgres_command,
        databases.postgres_ready,
        prepare=databases.prepare_postgres,
        after=databases.make_databases,
        unprivileged=True,
        stop=signal.SIGINT,
    ),
    "redis": Part(databases.redis_command, databases.redis_ready, prepare=databases.prepare_redis),
    "s3-mon": Part(ceph.mon_command, ceph.mon_ready, prepare=ceph.prepare_mon),
    # It gives up when it asks before it has the monitor's map.
    "s3-osd": Part(ceph.osd_command, ceph.osd_ready, needs=("s3-mon",), prepare=ceph.prepare_osd, attempts=5),
    "s3": Part(
        ceph.gateway_command,
        ceph.gateway_ready,
        needs=("s3-osd",),
        prepare=ceph.prepare_gateway,
        after=ceph.make_buckets,
    ),
    "mlflow": Part(_mlflow_command, _mlflow_ready, needs=("postgres",), env=_mlflow_env),
    "alerts": Part(_alerts_command, _alerts_ready),
    "api-server": _airflow("api-server", after=airflow.set_up),
    "scheduler": _airflow("scheduler"),
    "dag-processor": _airflow("dag-processor"),
    "triggerer": _airflow("triggerer"),
    "worker": _airflow("worker", (MIGRATE, "redis")),
}
# Ended first, so that nobody looks for a database that is gone.
CLIENTS = ("api-server", "scheduler", "dag-processor", "triggerer", "worker", "mlflow", "alerts", "s3")


def missing(settings: dict[str, str] | None = None) -> str | None:
    """What a stack needs and this machine lacks, in one sentence; None when everything is there.

    `settings` are the variables that the stack's servers will get.
    """
    try:
        for name in _BINARIES:
            databases.binary(name)
        unprivileged()
    except InputMissing as error:
        return str(error)
    for program in (VENV / "mlflow", airflow.BIN / "airflow"):
        if not program.exists():
            return f"{program} is missing: make the environments first"
    probe = [str(VENV / "python"), "-c", "import psycopg2"]
    if subprocess.run(probe, env=environment(settings or {}), capture_output=True, check=False).returncode:
        return f"psycopg2 is not installed in {VENV.parent}: MLflow's server needs it for Postgres"
    return None
