"""What one stack is: its folder, ports, secrets and options, kept in stack.json (mode 600) below the folder."""

import base64
import json
import os
import random
import secrets
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clinprompt.errors import InputMissing

ROOT = Path(__file__).resolve().parents[3]
REGION = "us-east-1"
USERS = {"admin": "admin", "operator": "op", "viewer": "viewer"}  # Airflow's users and their roles
_PORTS = ("postgres", "redis", "s3", "s3-mon", "mlflow", "airflow", "alerts")


@dataclass(frozen=True)
class Config:
    """A stack's choices; written once, so that a later command finds the same servers."""

    folder: Path
    executor: str  # celery or local
    dags: dict[str, str]  # DAG bundle: its folder
    settings: dict[str, str]  # variables that win over the servers' own
    ports: dict[str, int]
    secrets: dict[str, str] = field(repr=False)

    def url(self, part: str) -> str:
        """The URL of a part that speaks HTTP."""
        return f"http://127.0.0.1:{self.ports[part]}"

    def database(self, name: str, driver: str = "postgresql") -> str:
        """The URL of a database, with its password."""
        return f"{driver}://{name}:{self.secrets[name]}@127.0.0.1:{self.ports['postgres']}/{name}"

    def s3(self, user: str) -> dict[str, str]:
        """The variables with which a user (store or mlflow) reaches S3."""
        return {
            "AWS_ACCESS_KEY_ID": self.secrets[f"s3-{user}-id"],
            "AWS_SECRET_ACCESS_KEY": self.secrets[f"s3-{user}"],
            "AWS_ENDPOINT_URL": self.url("s3"),
            "AWS_DEFAULT_REGION": REGION,
        }

    @property
    def components(self) -> dict[str, str]:
        """The variables with which the components reach the servers."""
        return {"CLINPROMPT_STORE": "s3://clinprompt/store", "MLFLOW_TRACKING_URI": self.url("mlflow")} | self.s3(
            "store"
        )

    @property
    def parts(self) -> list[str]:
        """The names of this stack's parts."""
        celery = ["redis", "worker"] if self.executor == "celery" else []
        servers = ["postgres", "s3-mon", "s3-osd", "s3", "mlflow", "alerts"]
        return [*servers, *celery, "api-server", "scheduler", "dag-processor", "triggerer"]


def load(folder: Path) -> Config:
    """The stack of a folder; raises InputMissing when there is none."""
    file = folder.resolve() / "stack.json"
    if not file.exists():
        raise InputMissing(f"{folder} holds no stack: start one with `up --folder {folder}`")
    saved = json.loads(file.read_text())
    return Config(**saved | {"folder": Path(saved["folder"])})


def create(folder: Path, executor: str, dags: dict[str, Path], settings: dict[str, str]) -> Config:
    """The configuration of a folder's stack; ports and secrets are made the first time, and kept."""
    folder = folder.resolve()
    if (folder / "stack.json").exists():
        old = load(folder)
        ports, secret_values = old.ports, old.secrets
    else:
        ports, secret_values = _free_ports(), _secrets()
    bundles = {name: str(path.resolve()) for name, path in dags.items()}
    config = Config(folder, executor, bundles, settings, ports, secret_values)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # Postgres runs as another user when the caller is root, and must get through
    for name in ("logs", "run", "airflow"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    private(folder / "stack.json", json.dumps(asdict(config) | {"folder": str(folder)}, indent=1))
    return config


def private(file: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    temporary = file.with_name(file.name + ".new")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(file)


def _secrets() -> dict[str, str]:
    names = ["postgres", "airflow", "mlflow", "redis", *(f"user-{name}" for name in USERS)]
    names += [f"s3-{user}{part}" for user in ("store", "mlflow") for part in ("", "-id")]
    values = {name: secrets.token_hex(16) for name in names}
    fernet = base64.urlsafe_b64encode(os.urandom(32)).decode()
    return values | {"fernet": fernet, "jwt": secrets.token_urlsafe(64), "api": secrets.token_urlsafe(64)}


def _free_ports() -> dict[str, int]:
    """Ports below those that the kernel gives to outgoing connections, so that a stopped server gets its own back."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    start = max(1024, end - 16_000)
    ports: dict[str, int] = {}
    for port in random.sample(range(start, end), min(500, end - start)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                ports[_PORTS[len(ports)]] = port
        if len(ports) == len(_PORTS):
            return ports
    raise InputMissing(f"no {len(_PORTS)} free ports were found between {start} and {end}")
