"""The local runner: the components' interpreter as a child process on the worker itself."""

import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any

from clinprompt.contract.exit_codes import ExitCode
from clinprompt_dags.environment import local_environment
from clinprompt_dags.failures import failure
from clinprompt_dags.operators import ComponentTask
from clinprompt_dags.task import TAIL, Call, conclude, read_result

_PR_SET_PDEATHSIG = 1
_GRACE = 20  # seconds between SIGTERM and SIGKILL
_POLL = 1.0  # seconds between looks at the parent process
_LINGER = 5.0  # seconds to wait for a grandchild that holds a pipe open
_RESULT_LINES = 500

# Loaded before the fork: the child must not take locks.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class LocalTask(ComponentTask):
    """Runs `python -m workspace` with the interpreter that params.yaml names."""

    process: subprocess.Popen[bytes] | None = None

    def run_component(self, call: Call, context: Any) -> dict[str, Any]:
        """Start the process in a group of its own, follow it, and stop it when this task is stopped."""
        python = self.settings.python
        own = local_environment(os.environ, promotes=self.need.promotes, signs=self.signs)
        environment = own | call.plain | call.private
        environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        environment["PYTHONUNBUFFERED"] = "1"
        try:
            self.process = subprocess.Popen(  # noqa: S603
                [str(python), *call.arguments],
                cwd=self.settings.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 # it calls nothing but prctl
            )
        except OSError as error:
            raise failure(
                127, f"airflow.python in params.yaml: {python} cannot be started ({error.strerror}); run `make demo`."
            ) from None
        output: deque[str] = deque(maxlen=_RESULT_LINES)
        tail: deque[str] = deque(maxlen=TAIL)
        try:
            self._follow(self.process, output, tail)
            code = self.process.wait()
        finally:
            self._stop()
        return conclude(code, read_result(output), tail)

    def on_kill(self) -> None:
        """Called in the task's process when someone stops the task."""
        self._stop()

    def _follow(self, process: subprocess.Popen[bytes], output: deque[str], tail: deque[str]) -> None:
        def log_line(line: str) -> None:
            tail.append(line)
            self.log.info("%s", line)

        parent, ended = os.getppid(), None
        with selectors.DefaultSelector() as selector:
            for pipe, take in ((process.stdout, output.append), (process.stderr, log_line)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, _Lines(pipe, take))
            while selector.get_map():
                for key, _ in selector.select(_POLL):
                    if not key.data.read():
                        selector.unregister(key.fileobj)
                if os.getppid() != parent:
                    raise failure(
                        ExitCode.INTERRUPTED, "the task's supervisor was killed; the component is stopped.", [*tail]
                    )
                if process.poll() is not None:
                    ended = ended or time.monotonic()
                    if time.monotonic() - ended > _LINGER:
                        return

    def _stop(self) -> None:
        """End the whole process group, first politely."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


class _Lines:
    """Cuts what a pipe gives into lines; a progress bar's carriage return ends one too."""

    def __init__(self, pipe: IO[bytes], take: Callable[[str], None]) -> None:
        self.pipe = pipe
        self.take = take
        self.rest = b""

    def read(self) -> bool:
        """Take what is there; False at the end."""
        chunk = os.read(self.pipe.fileno(), 1 << 16)
        *lines, self.rest = re.split(rb"[\r\n]", self.rest + chunk) if chunk else (self.rest, b"")
        for line in lines:
            text = line.decode("utf-8", errors="replace").rstrip()
            if text:
                self.take(text)
        return bool(chunk)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _die_with_parent() -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
