"""Starts an MLflow server as often as it is asked to, each in a fork of this process, which has MLflow's imports done.

Each line of standard input is JSON: the arguments of `mlflow server`, and the file that gets its log. The answer is the
number of its process, which leads a group of its own. It is MLflow's own command; where that would start another Python
to serve, it serves in its own process.
"""

import json
import os
import signal
import sys
from typing import Any, NoReturn

import uvicorn  # before MLflow, which then knows that it serves

# isort: split
import mlflow.cli
import mlflow.server.fastapi_app


def serve(arguments: list[str], log: str) -> NoReturn:
    """Be the server."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    mlflow.server._exec_cmd = _here  # type: ignore[assignment]
    mlflow.cli.cli(["server", *arguments])
    os._exit(1)


def _here(command: list[str], *, extra_env: dict[str, str], **_: Any) -> NoReturn:
    os.environ.update(extra_env)
    python, flag, module, *arguments = command
    assert (python, flag, module) == (sys.executable, "-m", "uvicorn")
    uvicorn.main(arguments)
    os._exit(1)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        arguments, log = json.loads(line)
        process = os.fork()
        if process == 0:
            serve(arguments, log)
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
