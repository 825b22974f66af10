"""The operators: what is common to the runners, and the branch before a promotion."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseBranchOperator, BaseOperator

from clinprompt.contract import variables
from clinprompt.contract.tasks import pack
from clinprompt_dags.commands import FACTS, TaskCommand
from clinprompt_dags.config import Settings
from clinprompt_dags.entries import PLAN, Candidate, listed, read_plan
from clinprompt_dags.environment import services
from clinprompt_dags.failures import TaskOutOfMemory
from clinprompt_dags.graph import Need
from clinprompt_dags.links import MlflowRunLink
from clinprompt_dags.task import Call

MICRO_BATCHES = "micro_batches"  # the key in the task's state store, which outlives its tries


class ComponentTask(BaseOperator):
    """A task whose work is one process of the components' environment; how it runs is the subclass's.

    Args:
        task_command: what is asked, and what becomes of the answer.
        need: image and resources.
        candidate: the candidate, in the mapped group.
    """

    template_fields: Sequence[str] = ("candidate",)

    def __init__(
        self, *, task_command: TaskCommand, need: Need, settings: Settings, candidate: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.task_command = task_command
        self.need = need
        self.settings = settings
        self.candidate = candidate
        self.signs = may_sign(task_command, need)
        if need.promotes:
            self.operator_extra_links = (MlflowRunLink(),)

    @abstractmethod
    def run_component(self, call: Call, context: Any) -> dict[str, Any]:
        """Run the process to its end and return its result.

        Raises:
            ComponentFailed: by its exit code.
        """

    def execute(self, context: Any) -> Any:
        """Ask, and keep the answer; after GPU out-of-memory the next try gets twice the micro-batches."""
        candidate: Candidate = self.candidate or {}
        # The label of the mapped instance; the database gives the keys back in an order of its own.
        context["candidate"] = "-".join(str(candidate[key]) for key in ("candidate", "seed") if key in candidate)
        count = int(context["task_state_store"].get(MICRO_BATCHES, 1))
        task = self.task_command.task(context, candidate)
        plain, private = services(promotes=self.need.promotes)
        plain |= {variables.TASK: pack(task), variables.MICRO_BATCHES: str(count)}
        try:
            result = self.run_component(Call(self.task_command.arguments(context), task, plain, private), context)
        except TaskOutOfMemory:
            context["task_state_store"].set(MICRO_BATCHES, 2 * count)
            self.log.warning("GPU out of memory with %s micro-batches: the next try gets %s.", count, 2 * count)
            raise
        return self.task_command.finish(context, result)


def may_sign(task_command: TaskCommand, need: Need) -> bool:
    """Whether a task may have the key that models are signed with."""
    return need.promotes and task_command.signs


class ListedCandidates(BaseOperator):
    """The plan's candidates of one list of params.yaml, to map tasks over: an XCom of its own for each list."""

    def __init__(self, *, candidates: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.candidates = candidates

    def execute(self, context: Any) -> Any:
        """Take them from the plan."""
        return listed(read_plan(context["ti"], PLAN), self.candidates)


class PromotionBranch(BaseBranchOperator):
    """Follow the approval, the action or neither: what the gate allows, the plan wants and the run's params ask.

    Args:
        approval: the task that waits for a person.
        action: the task that changes the registry.
        plan_task: the task that left the plan, where there is one.
        gate: the task of the gate, where this run has one.
    """

    def __init__(
        self, *, approval: str, action: str, plan_task: str | None = None, gate: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.approval = approval
        self.action = action
        self.plan_task = plan_task
        self.gate = gate

    def choose_branch(self, context: Any) -> str | None:
        """The task to go on with, None for none."""
        ti = context["ti"]
        if self.gate and not self._gate_allows(ti.xcom_pull(task_ids=self.gate, key=FACTS, map_indexes=-1) or {}):
            return None
        plan = read_plan(ti, self.plan_task) if self.plan_task else {"promote": True, "approval": False}
        if not plan["promote"]:
            self.log.info("The plan says not to promote.")
            return None
        needs_approval = plan["approval"] or context["params"].get("approval") == "required"
        return self.approval if needs_approval else self.action

    def _gate_allows(self, facts: dict[str, Any]) -> bool:
        if facts.get("verdict") != "accepted":
            self.log.info("The gate rejected every candidate: the champion stays. That is a result, not a failure.")
            return False
        if facts.get("already_champion"):
            self.log.info("The gate's choice is the champion already: there is nothing to promote.")
            return False
        return True
