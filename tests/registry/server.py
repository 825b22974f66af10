"""A real MLflow server on SQLite that hands the artifacts through, and that can be killed and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

STARTS_WITHIN = 180  # seconds; an idle machine takes 13 for the first
SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
WARM = Path(__file__).with_name("warm_server.py")


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
        self._starter: subprocess.Popen[str] | None = None
        self._process: int | None = None

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._process is not None:
            return
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        arguments += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | SETTINGS
        if self.admin is not None:
            settings = f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{self.folder / 'auth.db'}\n"
            settings += "admin_username = admin\n"
            settings += "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            (self.folder / "auth.ini").write_text(settings)
            arguments += ["--app-name", "basic-auth"]
            env |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32,
            }
            env["MLFLOW_AUTH_ADMIN_PASSWORD"] = self.admin
        if self._starter is None:
            with self._log.open("ab") as log:
                self._starter = subprocess.Popen(
                    [sys.executable, str(WARM)], cwd=self.folder, env=env, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                )  # fmt: skip
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write(json.dumps([arguments, str(self._log)]) + "\n")
        self._starter.stdin.flush()
        answer = self._starter.stdout.readline()
        assert answer, self._log.read_text()[-2000:]
        self._process = int(answer)
        self._wait()

    def kill(self) -> None:
        """Kill it with its workers, as a crash of the machine would."""
        if self._process is None:
            return
        while self._runs():
            with suppress(ProcessLookupError):
                os.killpg(self._process, signal.SIGKILL)
            time.sleep(0.01)
        self._process = None

    def close(self) -> None:
        """Kill it for good."""
        self.kill()
        if self._starter is not None:
            self._starter.kill()
            self._starter.communicate()
            self._starter = None

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _runs(self) -> bool:
        assert self._process is not None
        try:
            os.kill(self._process, 0)
        except ProcessLookupError:
            return False
        return True

    def _wait(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self._runs():
            try:
                with urlopen(f"{self.uri}/health", timeout=5):  # noqa: S310
                    return
            except (URLError, OSError):
                time.sleep(0.2)
        self.close()
        raise RuntimeError(f"The MLflow server did not start: {self._log.read_text()[-2000:]}")
