"""All servers together: start, stop, kill and restart, each by its name or all at once."""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from types import TracebackType
from typing import Any

from clinprompt.errors import BadParams, InputMissing, ServiceDown
from infra.dev.servers import airflow
from infra.dev.servers.config import ROOT, Config, create, load
from infra.dev.servers.parts import CLIENTS, MIGRATE, PARTS, Part, missing
from infra.dev.servers.processes import PREPARE, end, find, main_process, memory, spawn, unprivileged, wait_ready

_START_TIMEOUT = 300  # seconds, for each part


class Stack:
    """The servers of one folder.

    As a context manager it is started on entry and stopped on exit; a guard process stops it when the caller dies.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.folder = config.folder
        self.airflow = airflow.client(config)
        self._abort = threading.Event()
        self.seconds: dict[str, float] = {}  # how long each part took to start

    @classmethod
    def new(
        cls,
        folder: Path,
        *,
        dags: dict[str, Path] | None = None,
        executor: str = "celery",
        settings: dict[str, str] | None = None,
    ) -> "Stack":
        """A stack below a folder, not yet started; DAG bundles (name: folder) and variables of every server."""
        if executor not in ("celery", "local"):
            raise BadParams(f"executor {executor!r}: expected celery or local")
        return cls(create(folder, executor, dags or {"clinprompt": ROOT / "dags"}, settings or {}))

    @classmethod
    def open(cls, folder: Path) -> "Stack":
        """The stack that was started below a folder."""
        return cls(load(folder))

    def __enter__(self) -> "Stack":
        self.guard()
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down(patience=5)

    # All parts

    def up(self) -> None:
        """Start what isn't running, in parallel where possible; on any failure everything is stopped again."""
        lacking = missing(self.config.settings)
        if lacking:
            raise InputMissing(lacking)
        names = set(self.config.parts)
        jobs: dict[str, Callable[[], None]] = {name: self._starter(name) for name in names}
        self._abort.clear()
        jobs[MIGRATE] = lambda: airflow.migrate(self.config)
        needs = {name: set(PARTS[name].needs) for name in names} | {MIGRATE: {"postgres"}}
        try:
            self._run_all(jobs, needs)
        except BaseException:
            self.down(patience=2)
            raise

    def down(self, patience: float = 10) -> None:
        """Stop everything, whatever started it; after `patience` seconds what is left is killed."""
        clients = [name for name in PARTS if name in CLIENTS]
        end(self.folder, clients, signal.SIGTERM, patience)
        servers = {"postgres": signal.SIGINT, "redis": signal.SIGTERM, "s3-osd": signal.SIGTERM}
        for name, how in servers.items():
            end(self.folder, [name], how, patience)
        end(self.folder, ["s3-mon", "guard", PREPARE], signal.SIGKILL, patience)

    def guard(self) -> None:
        """Start a process that stops everything when the caller dies."""
        self.folder.joinpath("run").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "infra.dev.stack", "guard", "--folder", str(self.folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        spawn(self.folder, "guard", [*command, "--pid", str(os.getpid())], environment)

    # One part

    def start(self, name: str, timeout: float = _START_TIMEOUT) -> None:
        """Start a part and wait until it answers; one that runs already is left alone."""
        part = PARTS[self._checked_name(name)]
        if main_process(self.folder, name) is not None:
            return
        since = time.time()
        part.prepare(self.config)
        for attempt in range(part.attempts):
            try:
                self._spawn(name, part, since, timeout)
                break
            except ServiceDown:
                if attempt + 1 == part.attempts or self._abort.is_set():
                    raise
        part.after(self.config)
        self.seconds[name] = time.time() - since

    def _spawn(self, name: str, part: Part, since: float, timeout: float) -> None:
        airflow.mark_start(self.folder / "logs" / f"{name}.log")
        user = unprivileged() if part.unprivileged else None
        spawn(self.folder, name, part.command(self.config), part.env(self.config), user=user)
        wait_ready(self.folder, name, lambda: self._go_on() and part.ready(self.config, since), timeout)

    def stop(self, name: str, patience: float = 20) -> None:
        """Ask a part to end; after `patience` seconds it is killed. A worker ends its tasks first."""
        end(self.folder, [self._checked_name(name)], PARTS[name].stop, patience)

    def kill(self, name: str) -> None:
        """End a part with SIGKILL, and with it all processes that it has started, such as a worker's tasks."""
        end(self.folder, [self._checked_name(name)], signal.SIGKILL, 0)

    def restart(self, name: str, patience: float = 20) -> None:
        """Stop a part and start it again."""
        self.stop(name, patience)
        self.start(name)

    def running(self, name: str) -> bool:
        """Whether a part's first process lives."""
        return main_process(self.folder, self._checked_name(name)) is not None

    # What others ask

    @property
    def env(self) -> dict[str, str]:
        """The variables with which the components reach the servers."""
        return dict(self.config.components)

    @property
    def url(self) -> str:
        """Airflow's address."""
        return self.config.url("airflow")

    def as_user(self, user: str) -> "airflow.Airflow":
        """Airflow's REST API as one of the users admin, operator and viewer."""
        return airflow.client(self.config, user)

    def alerts(self) -> list[dict[str, Any]]:
        """What Airflow has posted to the webhook of `clinprompt_alerts`, oldest first."""
        file = self.folder / "alerts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def status(self) -> list[tuple[str, int | None, int | None, int]]:
        """For each part: name, pid (None: not running), port and memory in bytes."""
        processes = find(self.folder)
        rows = []
        for name in self.config.parts:
            pids = [pid for pid, part in processes.items() if part == name]
            port = self.config.ports.get("airflow" if name == "api-server" else name)
            rows.append((name, main_process(self.folder, name), port, memory(pids)))
        return rows

    def _checked_name(self, name: str) -> str:
        if name not in self.config.parts:
            raise BadParams(f"{name!r} is not a part of this stack: expected one of {', '.join(self.config.parts)}")
        return name

    def _starter(self, name: str) -> Callable[[], None]:
        return lambda: self.start(name)

    def _run_all(self, jobs: dict[str, Callable[[], None]], needs: dict[str, set[str]]) -> None:
        """Run each job once those that it needs are done; the first failure is raised when the running ones end."""
        order = TopologicalSorter(needs)
        order.prepare()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
            try:
                while order.is_active():
                    for name in order.get_ready():
                        running[pool.submit(self._timed, name, jobs[name])] = name
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        future.result()
                        order.done(running.pop(future))
            except BaseException:
                self._abort.set()
                end(self.folder, [*self.config.parts, PREPARE], signal.SIGKILL, 0)
                raise

    def _go_on(self) -> bool:
        if self._abort.is_set():
            raise ServiceDown("another part could not be started")
        return True

    def _timed(self, name: str, job: Callable[[], None]) -> None:
        start = time.monotonic()
        job()
        self.seconds[name] = time.monotonic() - start


def wait_for_end(pid: int) -> None:
    """Return when a process has ended; it need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)
