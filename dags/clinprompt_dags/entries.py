"""What other tasks of a run pass on in Airflow's XComs: the run's plan and the entries of its stages."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.tasks import MAX_ENTRY_BYTES
from clinprompt_dags.failures import failure

PLAN = "plan"  # the XCom keys beside the returned entry
ENTRIES = "entries"
METHODS, TAUGHT = "methods", "taught"  # the lists of candidates

Context = Any  # Airflow's, a dictionary at run time
Candidate = dict[str, Any]


class Entries(Protocol):
    """Where a stage's input entries come from."""

    def take(self, context: Context) -> list[dict[str, Any]]:
        """The entries, in a fixed order."""


@dataclass(frozen=True)
class Source:
    """The tasks that one stage's entry comes from: its own or, when the run cache had it, its probe."""

    task_id: str
    probe_id: str | None = None
    candidates: str | None = None  # the list of candidates that the tasks are mapped over
    optional: bool = False  # a promotion that was not wanted, or what follows it

    def entry(self, ti: Any, map_index: int) -> dict[str, Any] | None:
        """The entry of one instance.

        Raises:
            ComponentFailed: neither task left one.
        """
        for task_id in (self.probe_id, self.task_id):
            entry: dict[str, Any] | None = ti.xcom_pull(task_ids=task_id, map_indexes=map_index) if task_id else None
            if entry:
                return entry
        if self.optional:
            return None
        raise failure(ExitCode.BUG, f"the task {self.task_id} left no entry; clear it, so that it runs again.")


@dataclass(frozen=True)
class FromTasks:
    """Entries of this run's tasks; `beside` says that mapped ones are those of the same map index."""

    sources: tuple[Source, ...]
    beside: bool = False

    def take(self, context: Context) -> list[dict[str, Any]]:
        """The entries, stage by stage."""
        ti = context["ti"]
        entries = [source.entry(ti, index) for source in self.sources for index in self._indexes(ti, source)]
        return [entry for entry in entries if entry]

    def _indexes(self, ti: Any, source: Source) -> Iterable[int]:
        if source.candidates is None:
            return (-1,)
        return (ti.map_index,) if self.beside else range(len(listed(read_plan(ti, PLAN), source.candidates)))


@dataclass(frozen=True)
class FromRecord:
    """Entries of an earlier run, as the task `promotion` found them; only those of the named stages."""

    task_id: str
    stages: frozenset[str]

    def take(self, context: Context) -> list[dict[str, Any]]:
        """The entries, in the record's order."""
        ti = context["ti"]
        count = ti.xcom_pull(task_ids=self.task_id, key=ENTRIES, map_indexes=-1)
        entries = [ti.xcom_pull(task_ids=self.task_id, key=f"{ENTRIES}_{n}", map_indexes=-1) for n in range(count)]
        return [entry for entry in entries if entry["stage"].partition("@")[0] in self.stages]


@dataclass(frozen=True)
class AllOf:
    """Entries of several sources, one after the other."""

    parts: tuple[Entries, ...]

    def take(self, context: Context) -> list[dict[str, Any]]:
        """The entries, source by source."""
        return [entry for part in self.parts for entry in part.take(context)]


def read_plan(ti: Any, task_id: str) -> dict[str, Any]:
    """The run's plan, as the task that settled it left it."""
    plan: dict[str, Any] = ti.xcom_pull(task_ids=task_id, key=PLAN, map_indexes=-1)
    return plan


def listed(plan: dict[str, Any], candidates: str) -> list[Candidate]:
    """The plan's candidates of one of the lists of params.yaml, `methods` or `taught`."""
    return [candidate for candidate in plan["candidates"] if candidate["taught"] == (candidates == TAUGHT)]


def checked_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, when it is small enough for Airflow's database.

    Raises:
        ComponentFailed: it is longer than 2 KB.
    """
    size = len(json.dumps(entry, separators=(",", ":")).encode())
    if size > MAX_ENTRY_BYTES:
        raise failure(
            ExitCode.BUG, f"the entry of {entry.get('stage')} has {size} bytes; at most {MAX_ENTRY_BYTES} are allowed."
        )
    return entry
