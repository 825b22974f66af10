"""Makes the tasks of a DAG: ids, pools, retries, timeouts and documentation, from the graph and the settings."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, DeadlineAlert, DeadlineReference, SyncCallback, TriggerRule

from clinprompt.contract.files import IMAGES_LOCK
from clinprompt_dags.callbacks import deadline_missed, task_failed
from clinprompt_dags.commands import ProbeCommand, StageCommand, TaskCommand
from clinprompt_dags.config import Settings, load_settings
from clinprompt_dags.entries import METHODS, TAUGHT, FromTasks, Source
from clinprompt_dags.failures import meaning, retry_policy
from clinprompt_dags.graph import Graph, Need, Stage, load_graph
from clinprompt_dags.operators import ComponentTask
from clinprompt_dags.questions import AskPerson
from clinprompt_dags.runners import operator_class

LIGHT = Need(image="data", memory="2Gi", retries=2, timeout_minutes=60)  # plans, probes and records
GROUPS = {METHODS: "candidates", TAUGHT: "taught"}  # the mapped groups, by the list of candidates
_POOLS = {"default": "default_pool"}
_BACKOFF = 4.0  # a service that is down: after 0.5, 2 and 8 minutes
_LONGEST_DELAY = timedelta(minutes=30)
_ASK_AGAIN = timedelta(seconds=5)  # Airflow takes an answer within the first seconds for a lost task, and asks again


class Factory:
    """What the DAG files build with.

    Raises:
        BadDocument: a YAML file of the project is wrong; it becomes Airflow's import error.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.graph: Graph = load_graph(self.settings.root)
        self.operator = operator_class(self.settings.runner)
        # Events of it have a partition key, dataset@release: people are to be asked about descriptions of a run.
        self.doubts = Asset("descriptions-in-doubt")
        self.assets = {name: Asset(f"dataset/{name}") for name in self.settings.datasets}
        lock = self.settings.root / IMAGES_LOCK
        self.images = lock.read_text(encoding="utf-8") if lock.is_file() else None

    def dag(self, dag_id: str, **kwargs: Any) -> DAG:
        """A DAG with what all of them have in common."""
        settings = self.settings
        late = settings.deadline and DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=settings.deadline,
            callback=SyncCallback(deadline_missed, kwargs={"dag_id": dag_id}),
        )
        return DAG(
            dag_id,
            catchup=False,
            tags=["clinprompt", settings.runner],
            dagrun_timeout=settings.run_timeout,
            deadline=late,
            default_args={
                "owner": settings.owner,
                "retries": LIGHT.retries,
                "retry_delay": settings.retry_delay,
                "retry_exponential_backoff": _BACKOFF,
                "max_retry_delay": _LONGEST_DELAY,
                "execution_timeout": timedelta(minutes=LIGHT.timeout_minutes),
                "on_failure_callback": task_failed,
            },
            **kwargs,
        )

    def task(
        self, task_id: str, task_command: TaskCommand, need: Need = LIGHT, doc: str = "", **kwargs: Any
    ) -> ComponentTask:
        """A task of the configured runner."""
        if need.promotes and self.settings.promotion_queue:
            kwargs["queue"] = self.settings.promotion_queue
        return self.operator(
            task_id=task_id,
            task_command=task_command,
            need=need,
            settings=self.settings,
            pool=_POOLS.get(need.pool, need.pool),
            retries=need.retries,
            retry_policy=retry_policy(),
            execution_timeout=timedelta(minutes=need.timeout_minutes),
            doc_md=doc,
            **kwargs,
        )

    def stage(self, stage: Stage, candidate: Any = None) -> tuple[ComponentTask, ComponentTask]:
        """The first and the last task of a stage: itself, or before it a probe, when it asks for a GPU's slot.

        A skipped stage is one that the run cache had: what follows runs all the same.
        """
        entries = FromTasks(tuple(self.source(name) for name in stage.upstream), beside=stage.mapped)
        label = {"map_index_template": "{{ candidate }}"} if stage.mapped else {}
        own = self.task(
            stage.name,
            StageCommand(stage.name, entries),
            stage.need,
            stage_doc(stage),
            trigger_rule=self.trigger_rule(stage),
            candidate=candidate,
            **label,
        )
        if stage.need.pool != "gpu":
            return own, own
        probe = self.task(
            f"probe_{stage.name}",
            ProbeCommand(stage.name, entries, skips=self.task_id(stage)),
            LIGHT,
            f"Looks whether the run cache has `{stage.name}`, so that a hit waits for no GPU.",
            trigger_rule=TriggerRule.NONE_FAILED,
            candidate=candidate,
            **label,
        )
        probe >> own
        return probe, own

    def trigger_rule(self, stage: Stage) -> TriggerRule:
        """A stage runs after stages that were skipped as the run cache had them; not after a promotion that was."""
        follows = any(self.graph.is_optional(name) for name in stage.upstream)
        return TriggerRule.ALL_SUCCESS if follows else TriggerRule.NONE_FAILED

    def task_id(self, stage: Stage) -> str:
        """A stage's task id in the run."""
        return f"{GROUPS[stage.candidates]}.{stage.name}" if stage.candidates else stage.name

    def source(self, name: str) -> Source:
        """Where a stage's entry is found."""
        stage = self.graph[name]
        task_id = self.task_id(stage)
        head, _, tail = task_id.rpartition(".")
        probe = f"{head}.probe_{tail}" if head else f"probe_{tail}"
        return Source(
            task_id,
            probe_id=probe if stage.need.pool == "gpu" else None,
            candidates=stage.candidates,
            optional=self.graph.is_optional(name),
        )

    def approval(self, subject: str, body: str) -> ApprovalOperator:
        """A task that waits for a person. Without an answer in time it rejects, which is no failure."""
        return ApprovalOperator(
            task_id="approval",
            subject=subject,
            body=body,
            defaults=ApprovalOperator.REJECT,
            response_timeout=self.settings.approval_timeout,
            retry_delay=_ASK_AGAIN,
            retry_exponential_backoff=0,
            doc_md="Approve or reject under *Required actions*. Without an answer the promotion is rejected.",
        )

    def question(self, task_id: str, question: Any) -> AskPerson:
        """A task that asks a person about descriptions. Without an answer in time nothing is decided."""
        return AskPerson(
            task_id=task_id,
            question=question,
            response_timeout=self.settings.approval_timeout,
            retry_delay=_ASK_AGAIN,
            retry_exponential_backoff=0,
            map_index_template="{{ task.question['class'] }} {{ task.question['part'] }}",
            doc_md="Accept or reject each sentence under *Required actions*, or leave it for later.",
        )


def stage_doc(stage: Stage) -> str:
    """A stage in Markdown, from its component.yaml."""
    need = stage.need
    codes = ", ".join(f"{code} {meaning(code).title}" for code in stage.exit_codes if code)
    gpu = {"none": "no GPU", "optional": "a GPU if there is one", "required": "a GPU"}[need.gpu]
    return (
        f"{stage.about}\n\n"
        f"Image `{need.image}`, {need.cpu:g} CPUs, {need.memory}, {gpu}. Reads what "
        f"{', '.join(stage.upstream) or 'the release'} gave. Exit codes besides 0: {codes}."
    )
