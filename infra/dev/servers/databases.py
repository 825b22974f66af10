"""Postgres and Redis."""

import shutil
import socket
import subprocess
from pathlib import Path

from clinprompt.errors import BadParams, InputMissing
from infra.dev.servers.config import Config, private
from infra.dev.servers.processes import environment, run, unprivileged

_DATABASES = ("airflow", "mlflow")
# A test's data need not survive the machine; it does survive the processes.
_POSTGRES = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "150",
}


def binary(name: str) -> str:
    """A server's program: on the path, or where Debian puts those of Postgres."""
    debian = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = shutil.which(name, path=":".join([*debian, environment()["PATH"], "/usr/local/bin"]))
    if path is None:
        raise InputMissing(f"{name} is not installed: run infra/dev/packages.sh as root")
    return path


def prepare_postgres(config: Config) -> None:
    """Make the cluster, as an unprivileged user."""
    data, log = config.folder / "postgres", config.folder / "logs" / "postgres-prepare.log"
    if (data / "PG_VERSION").exists():
        return
    user = unprivileged()
    closed = [str(parent) for parent in data.parents if not parent.stat().st_mode & 0o001]
    if user and closed:
        raise BadParams(f"{closed[0]}: nobody but its owner may enter it, and Postgres won't run as root: chmod o+x it")
    password = config.folder / "postgres.password"
    private(password, config.secrets["postgres"] + "\n")
    data.mkdir(mode=0o700, exist_ok=True)
    if user:
        shutil.chown(data, user, user)
        shutil.chown(password, user, user)
    command = [binary("initdb"), "-D", str(data), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
    try:
        run([*command, "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"], environment(), log, user=user)
    finally:
        password.unlink()


def postgres_command(config: Config) -> list[str]:
    """The command of the Postgres server."""
    options = [f"--{key}={value}" for key, value in _POSTGRES.items()]
    return [binary("postgres"), "-D", str(config.folder / "postgres"), "-p", str(config.ports["postgres"]), *options]


def postgres_ready(config: Config, since: float) -> bool:
    """Whether Postgres accepts connections."""
    command = [binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(config.ports["postgres"])]
    return subprocess.run(command, env=environment(), check=False).returncode == 0


def make_databases(config: Config) -> None:
    """Make a role and a database for Airflow and for MLflow, where they are missing."""
    statements = []
    for name in _DATABASES:
        missing = f"WHERE NOT EXISTS (SELECT FROM pg_{{}} WHERE {{}} = '{name}')"
        role = f"CREATE ROLE {name} LOGIN PASSWORD '{config.secrets[name]}'"
        statements.append(f"SELECT $${role}$$ {missing.format('roles', 'rolname')} \\gexec")
        database = f"CREATE DATABASE {name} OWNER {name}"
        statements.append(f"SELECT $${database}$$ {missing.format('database', 'datname')} \\gexec")
    command = [binary("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(config.ports["postgres"])]
    env = environment({"PGPASSWORD": config.secrets["postgres"]})
    run(
        [*command, "-U", "postgres", "postgres"],
        env,
        config.folder / "logs" / "postgres-prepare.log",
        text="\n".join(statements) + "\n",
    )


def prepare_redis(config: Config) -> None:
    """Write Redis's configuration; its password must not stand in a command line."""
    lines = ["bind 127.0.0.1", f"port {config.ports['redis']}", f"requirepass {config.secrets['redis']}"]
    lines += ['save ""', "appendonly no", "set-proc-title no", f"dir {config.folder / 'run'}"]
    private(config.folder / "run" / "redis.conf", "\n".join(lines) + "\n")


def redis_command(config: Config) -> list[str]:
    """The command of the Redis server."""
    return [binary("redis-server"), str(config.folder / "run" / "redis.conf")]


def redis_ready(config: Config, since: float) -> bool:
    """Whether Redis answers to the password."""
    try:
        with socket.create_connection(("127.0.0.1", config.ports["redis"]), timeout=2) as connection:
            connection.sendall(f"AUTH {config.secrets['redis']}\r\nPING\r\n".encode())
            answer = b""
            while b"PONG" not in answer:
                received = connection.recv(1024)
                if not received:
                    return False
                answer += received
            return True
    except OSError:
        return False
