"""Starts server processes, finds them again from any other process, and ends them with all that they have started.

Every process carries a variable that names its folder and part, and so do its children. /proc therefore tells what
belongs to a part, also after a parent has died, changed its session or the script that started it has gone.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from clinprompt.errors import ServiceDown

MARK = "CLINPROMPT_STACK_PART"
PREPARE = "prepare"
_RUN_TIMEOUT = 180  # seconds, for what is prepared before a part starts
_POLL = 0.2  # seconds
_started: list[subprocess.Popen[bytes]] = []  # kept, so that Python does not warn of children that outlive it

_INHERITED = ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")
_QUIET = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "SPT_NOENV": "1",  # a process that sets its title must not overwrite the mark
}


def environment(*layers: dict[str, str]) -> dict[str, str]:
    """A server's variables: few of the caller's, then the layers, later ones winning."""
    result = {name: os.environ[name] for name in _INHERITED if name in os.environ} | _QUIET
    for layer in layers:
        result |= layer
    return result


def unprivileged() -> str | None:
    """The user for servers that refuse to run as root; None when the caller isn't root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


def run(command: list[str], env: dict[str, str], log: Path, *, user: str | None = None, text: str = "") -> str:
    """Run a command to its end and return its stdout; raise ServiceDown with the log's name when it fails.

    `log` lies in the folder's logs/; the process belongs to the part `prepare`.
    """
    try:
        done = _run(command, env, log, user, text)
    except subprocess.TimeoutExpired:
        raise ServiceDown(f"{Path(command[0]).name} did not end within {_RUN_TIMEOUT} s; see {log}") from None
    if done.returncode:
        raise ServiceDown(f"{Path(command[0]).name} ended with status {done.returncode}; see {log}\n{tail(log)}")
    return done.stdout


def _run(
    command: list[str], env: dict[str, str], log: Path, user: str | None, text: str
) -> subprocess.CompletedProcess[str]:
    folder = log.parent.parent
    with log.open("a") as errors:
        return subprocess.run(
            command,
            env=env | {MARK: f"{folder}:{PREPARE}"},
            cwd=folder,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            input=text,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
            timeout=_RUN_TIMEOUT,
        )


def spawn(folder: Path, part: str, command: list[str], env: dict[str, str], *, user: str | None = None) -> int:
    """Start a part in a session of its own, writing to logs/PART.log; returns its pid."""
    log = folder / "logs" / f"{part}.log"
    with log.open("a") as output:
        started = subprocess.Popen(
            command,
            env=env | {MARK: f"{folder}:{part}"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    _started.append(started)
    (folder / "run" / f"{part}.pid").write_text(str(started.pid))
    return started.pid


def find(folder: Path, part: str | None = None) -> dict[int, str]:
    """The living processes of a folder's parts, or of one part, with their descendants: pid to part."""
    start = f"{MARK}={folder}:".encode()
    parts: dict[int, str] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state in "ZX":
                continue
            parents[int(entry.name)] = int(parent)
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(start):
                    parts[int(entry.name)] = variable[len(start) :].decode()
    grown = True
    while grown:
        new = {pid: parts[parent] for pid, parent in parents.items() if parent in parts and pid not in parts}
        parts |= new
        grown = bool(new)
    return {pid: name for pid, name in parts.items() if part in (None, name)}


def main_process(folder: Path, part: str) -> int | None:
    """The pid of a part's first process while it lives."""
    file = folder / "run" / f"{part}.pid"
    if not file.exists():
        return None
    pid = int(file.read_text())
    return pid if _starting(pid) or pid in find(folder, part) else None


def _starting(pid: int) -> bool:
    """Whether a process is still being loaded: until then, which takes a while from a cold disk, it shows no mark."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and not Path(f"/proc/{pid}/environ").read_bytes()
    return False


def end(folder: Path, parts: Iterable[str], stop_signal: signal.Signals, patience: float) -> None:
    """Signal the parts' first processes, wait up to `patience` seconds, then SIGKILL whatever is left of them."""
    names = set(parts)
    if stop_signal != signal.SIGKILL:
        for name in names:
            pid = main_process(folder, name)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, stop_signal)
        _wait_until(lambda: not _of(folder, names), patience)
    if not _wait_until(lambda: _kill_all(folder, names), 10):
        raise ServiceDown(f"{', '.join(sorted(names))}: processes {sorted(_of(folder, names))} do not end")


def wait_ready(folder: Path, part: str, ready: Callable[[], bool], timeout: float) -> None:
    """Wait until a part answers; raise ServiceDown with the log's name when it ends before, or takes too long."""
    log = folder / "logs" / f"{part}.log"
    deadline = time.monotonic() + timeout
    while not ready():
        if main_process(folder, part) is None:
            raise ServiceDown(f"{part} ended before it was ready; see {log}\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServiceDown(f"{part} was not ready after {timeout:.0f} s; see {log}\n{tail(log)}")
        time.sleep(_POLL)


def memory(pids: Iterable[int]) -> int:
    """The processes' memory in bytes, shared pages divided among their users (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    return total


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _of(folder: Path, names: set[str]) -> list[int]:
    return [pid for pid, name in find(folder).items() if name in names and pid != os.getpid()]


def _kill_all(folder: Path, names: set[str]) -> bool:
    survivors = _of(folder, names)
    for pid in survivors:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not survivors


def _wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
