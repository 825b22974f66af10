"""The commands of `python -m workspace` that tasks run: the input of each, and what its result becomes in Airflow."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from airflow.sdk.exceptions import DownstreamTasksSkipped

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.tasks import PartitionKey
from clinprompt_dags.entries import (
    ENTRIES,
    METHODS,
    PLAN,
    Candidate,
    Context,
    Entries,
    checked_entry,
    listed,
    read_plan,
)
from clinprompt_dags.failures import failure

FACTS = "facts"  # the XCom key beside the returned entry


class TaskCommand(ABC):
    """A command of `python -m workspace`."""

    command: str
    quiet = False  # does not write the file that CLINPROMPT_RESULT_FILE names
    signs = False  # makes models, which are signed: not so a rollback

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
    """The task instance that calls the components: its ids and the address of its log, for records and links."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "url": ti.log_url,
    }


def asked_release(context: Context) -> tuple[str, str | None]:
    """The dataset and release that a run is about: its partition key wins over its params.

    Raises:
        ComponentFailed: the partition key is none.
    """
    key = context["dag_run"].partition_key
    if not key:
        return context["params"]["dataset"], context["params"]["release"]
    try:
        partition = PartitionKey.parse(key)
    except ValueError as error:
        raise failure(ExitCode.BAD_PARAMS, f"the run's partition key: {error}.") from None
    return partition.dataset, partition.release


@dataclass(frozen=True)
class PlanCommand(TaskCommand):
    """Settle what the run consists of. Its XCom is the list of candidates that are not taught, over which tasks are
    mapped; those that are taught come from a task of their own."""

    images: str | None
    command = "plan"

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """The release, and what of it is run."""
        params = context["params"]
        dataset, release = asked_release(context)
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
        if not plan["candidates"]:
            raise failure(ExitCode.BAD_PARAMS, "the plan has no candidates; name at least one method and one seed.")
        return listed(plan, METHODS)


@dataclass(frozen=True)
class StageCommand(TaskCommand):
    """Run one stage in its own workspace."""

    stage: str
    entries: Entries
    plan_task: str = PLAN
    command = "stage"
    signs = True

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
    """Look the stage up in the run cache, before its task takes a slot of its pool."""

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
        version = [f"--version={params['version']}"] if params["version"] else []
        return ["-m", "registry", "rollback", params["dataset"], f"--reason={params['reason']}", *version, "--json"]

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """The task instance that rolls back, for the registry's journal."""
        return {"airflow": airflow_facts(context)}

    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """Return what the registry did."""
        return result
