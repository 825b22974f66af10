"""What each kind of task asks the components' environment for, and what it makes of the answer."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from airflow.sdk.exceptions import DownstreamTasksSkipped

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.tasks import MAX_ENTRY_BYTES, PartitionKey
from clinprompt_dags.failures import failure

PLAN = "plan"  # the XCom keys beside the returned entry
FACTS = "facts"
ENTRIES = "entries"

Context = Any  # Airflow's, a dictionary at run time
Candidate = dict[str, Any]


class TaskCommand(ABC):
    """A command of `python -m workspace`."""

    command: str
    quiet = False  # does not write the file that CLINPROMPT_RESULT_FILE names

    def arguments(self, context: Context) -> list[str]:
        """What follows `python`."""
        return ["-m", "workspace", self.command]

    @abstractmethod
    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """The content of CLINPROMPT_TASK."""

    @abstractmethod
    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """Keep what other tasks need; what it returns is the task's XCom."""


def airflow_facts(context: Context) -> dict[str, Any]:
    """Who asks, for the records and for the links back."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "url": ti.log_url,
    }


class Entries(Protocol):
    """Where a stage's input entries come from."""

    def take(self, context: Context) -> list[dict[str, Any]]:
        """The entries, in a fixed order."""


@dataclass(frozen=True)
class Source:
    """The tasks that one stage's entry comes from: its own or, when the run cache had it, its probe."""

    task_id: str
    probe_id: str | None = None
    mapped: bool = False
    optional: bool = False  # a promotion that was not wanted

    def entry(self, ti: Any, map_index: int) -> dict[str, Any] | None:
        """The entry of one instance.

        Raises:
            ComponentFailed: neither task left one.
        """
        for task_id in (self.probe_id, self.task_id):
            found: dict[str, Any] | None = ti.xcom_pull(task_ids=task_id, map_indexes=map_index) if task_id else None
            if found:
                return found
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
        found = [source.entry(ti, index) for source in self.sources for index in self._indexes(ti, source)]
        return [entry for entry in found if entry]

    def _indexes(self, ti: Any, source: Source) -> Iterable[int]:
        if not source.mapped:
            return (-1,)
        return (ti.map_index,) if self.beside else range(len(read_plan(ti, PLAN)["candidates"]))


@dataclass(frozen=True)
class FromRecord:
    """Entries of an earlier run, as the task `promotion` found them; only those of the named stages."""

    task_id: str
    stages: frozenset[str]

    def take(self, context: Context) -> list[dict[str, Any]]:
        """The entries, in the record's order."""
        ti = context["ti"]
        count = ti.xcom_pull(task_ids=self.task_id, key=ENTRIES, map_indexes=-1)
        found = [ti.xcom_pull(task_ids=self.task_id, key=f"{ENTRIES}_{n}", map_indexes=-1) for n in range(count)]
        return [entry for entry in found if entry["stage"].partition("@")[0] in self.stages]


def read_plan(ti: Any, task_id: str) -> dict[str, Any]:
    """The run's plan, as the task that settled it left it."""
    found: dict[str, Any] = ti.xcom_pull(task_ids=task_id, key=PLAN, map_indexes=-1)
    return found


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


@dataclass(frozen=True)
class PlanCommand(TaskCommand):
    """Settle what the run consists of. Its XCom is the list of candidates, over which tasks are mapped."""

    images: str | None
    command = "plan"

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """The run's partition key wins over its params: `dataset@release`."""
        params, key = context["params"], context["dag_run"].partition_key
        dataset, release = params["dataset"], params["release"]
        if key:
            try:
                asked = PartitionKey.parse(key)
            except ValueError as error:
                raise failure(ExitCode.BAD_PARAMS, f"the run's partition key: {error}.") from None
            dataset, release = asked.dataset, asked.release
        chosen = {name: params[name] for name in ("methods", "seeds", "overrides", "promote")}
        return {
            "dataset": dataset,
            "release": release,
            **chosen,
            "images": self.images,
            "airflow": airflow_facts(context),
        }

    def finish(self, context: Context, result: dict[str, Any]) -> list[Candidate]:
        """Keep the plan beside its candidates."""
        plan = result["plan"]
        context["ti"].xcom_push(key=PLAN, value=plan)
        candidates: list[Candidate] = plan["candidates"]
        if not candidates:
            raise failure(ExitCode.BAD_PARAMS, "the plan has no candidates; name at least one method and one seed.")
        return candidates


@dataclass(frozen=True)
class StageCommand(TaskCommand):
    """Run one stage in its own workspace."""

    stage: str
    entries: Entries
    plan_task: str = PLAN
    command = "stage"

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """The plan, the stage and the entries of the stages before it."""
        return {
            "plan": read_plan(context["ti"], self.plan_task),
            "stage": self.stage,
            "candidate": candidate or None,
            "entries": self.entries.take(context),
            "airflow": airflow_facts(context),
        }

    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the entry; the facts are kept beside it."""
        entry = checked_entry(result["entry"])
        context["ti"].xcom_push(key=FACTS, value={**result.get("facts", {}), "cached": result.get("cached", False)})
        return entry


@dataclass(frozen=True)
class ProbeCommand(StageCommand):
    """Look whether the run cache has the stage, before a slot of its pool is asked for."""

    skips: str = ""  # the task id of the stage
    command = "probe"

    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """On a hit, leave the entry and skip the stage's own task, this instance of it alone."""
        if not result["entry"]:
            return None
        ti = context["ti"]
        ti.xcom_push(key="return_value", value=checked_entry(result["entry"]))
        raise DownstreamTasksSkipped(tasks=[(self.skips, ti.map_index)])


@dataclass(frozen=True)
class RecordCommand(TaskCommand):
    """Keep the run's whole dvc.lock."""

    entries: Entries
    command = "record"

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """All entries of the run."""
        return {
            "plan": read_plan(context["ti"], PLAN),
            "entries": self.entries.take(context),
            "airflow": airflow_facts(context),
        }

    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the record's key and the lock's digest."""
        return result


@dataclass(frozen=True)
class SweepCommand(TaskCommand):
    """Find the releases that no run has recorded."""

    command = "sweep"

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """Which datasets and releases."""
        params = context["params"]
        return {"dataset": params["dataset"], "releases": params["releases"], "airflow": airflow_facts(context)}

    def finish(self, context: Context, result: dict[str, Any]) -> list[str]:
        """Return `dataset@release`, sorted."""
        return sorted(result["releases"])


@dataclass(frozen=True)
class PromotionCommand(TaskCommand):
    """Find the recorded run whose decision is to be promoted."""

    images: str | None
    command = "promotion"

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """Which release's run."""
        params = context["params"]
        return {
            "dataset": params["dataset"],
            "release": params["release"],
            "images": self.images,
            "airflow": airflow_facts(context),
        }

    def finish(self, context: Context, result: dict[str, Any]) -> str:
        """Keep the plan, and each entry on its own: an XCom is small."""
        ti, entries = context["ti"], result["entries"]
        ti.xcom_push(key=PLAN, value=result["plan"])
        for number, entry in enumerate(entries):
            ti.xcom_push(key=f"{ENTRIES}_{number}", value=checked_entry(entry))
        ti.xcom_push(key=ENTRIES, value=len(entries))
        return str(PartitionKey(result["plan"]["dataset"], result["plan"]["release"]))


@dataclass(frozen=True)
class RollbackCommand(TaskCommand):
    """Give the champion's place back to the version before it."""

    command = "rollback"
    quiet = True

    def arguments(self, context: Context) -> list[str]:
        """The registry's own command."""
        params = context["params"]
        meant = [f"--version={params['version']}"] if params["version"] else []
        return ["-m", "registry", "rollback", params["dataset"], f"--reason={params['reason']}", *meant, "--json"]

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """Who asks, for the registry's journal."""
        return {"airflow": airflow_facts(context)}

    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """Return what the registry did."""
        return result
