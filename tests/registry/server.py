"""A real MLflow server on SQLite that hands the artifacts through, and that can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

STARTS_WITHIN = 180  # seconds; an idle machine takes 13
SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """A server whose database and artifacts lie in `folder`; its address stays the same over restarts.

    Args:
        admin: the administrator's password; with it the server asks for logins, and lets who has one read.
    """

    def __init__(self, folder: Path, admin: str | None = None) -> None:
        self.folder, self.admin = folder, admin
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._process is not None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | SETTINGS
        if self.admin is not None:
            settings = f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{self.folder / 'auth.db'}\n"
            settings += "admin_username = admin\n"
            settings += "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            (self.folder / "auth.ini").write_text(settings)
            command += ["--app-name", "basic-auth"]
            env |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32,
            }
            env["MLFLOW_AUTH_ADMIN_PASSWORD"] = self.admin
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def kill(self) -> None:
        """Kill it with its workers, as a crash of the machine would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            try:
                with urlopen(f"{self.uri}/health", timeout=5):  # noqa: S310
                    return
            except (URLError, OSError):
                time.sleep(0.2)
        self.kill()
        raise RuntimeError(f"The MLflow server did not start: {(self.folder / 'log').read_text()[-2000:]}")
