"""The DAG `retrain`: one run per release of a dataset, from its files to a champion."""

from typing import Any

from airflow.sdk import AssetAny, Param, PartitionedAssetTimetable, TriggerRule, XComArg, chain, task_group

from clinprompt_dags.commands import PlanCommand, RecordCommand
from clinprompt_dags.entries import METHODS, TAUGHT, FromTasks
from clinprompt_dags.factory import GROUPS, Factory
from clinprompt_dags.graph import Stage
from clinprompt_dags.operators import ComponentTask, ListedCandidates, PromotionBranch
from clinprompt_dags.questions import AnnounceCommand

DOC = """
Trains every candidate on a release of a dataset, compares them, and promotes the best when the gate allows it.
The tasks are the stages of `dvc.yaml`; what each needs is in its `component.yaml`.

A run starts when the asset of a dataset gets an event with the partition key `dataset@release` (the DAG `sweep` sends
them, or a POST to `/api/v2/assets/events`), or by hand, with the params of the trigger form. What has run
before is taken from the run cache: running a release again computes nothing and promotes nothing.
"""
PROMOTE = "promote"
GATE = "gate"
DESCRIBE = "describe"

factory = Factory()
graph, settings = factory.graph, factory.settings


with factory.dag(
    "retrain",
    description="Train, compare and promote on a release of a dataset",
    doc_md=DOC,
    schedule=PartitionedAssetTimetable(assets=AssetAny(*factory.assets.values())),
    max_active_runs=4,
    params={
        "dataset": Param(
            settings.datasets[0], type="string", enum=list(settings.datasets), description="A card in datasets/."
        ),
        "release": Param(None, type=["null", "string"], description="Its release; by default the newest."),
        "methods": Param(
            None,
            type=["null", "array"],
            minItems=1,
            items={"type": "string", "enum": list(settings.candidates)},
            description="What competes, methods or variants; by default what params.yaml lists.",
        ),
        "seeds": Param(
            None,
            type=["null", "array"],
            minItems=1,
            items={"type": "integer", "minimum": 0},
            description="The seeds of each; by default those of params.yaml.",
        ),
        "overrides": Param({}, type="object", description='Keys of params.yaml: {"training": {"shots": 16}}.'),
        "promote": Param("auto", type="string", enum=["auto", "never"], description="never: stop after the report."),
    },
) as dag:
    plan = factory.task("plan", PlanCommand(factory.images), doc="Settles release, code, params and candidates, once.")
    taught = ListedCandidates(
        task_id="list_taught", candidates=TAUGHT, doc_md="The candidates that wait for `describe`, to map tasks over."
    )
    plan >> taught
    lists = {METHODS: plan.output, TAUGHT: taught.output}
    last: dict[str, ComponentTask] = {}
    groups: dict[str | None, Any] = {}

    def connect(stage: Stage, first: ComponentTask) -> None:
        """Put a stage behind those whose outputs it reads."""
        for name in graph.edges(stage.name):
            (groups[graph[name].candidates] if graph[name].mapped else last[name]) >> first
        if not stage.upstream:
            plan >> first

    def mapped(stages: list[Stage], candidates: XComArg, group_id: str) -> Any:
        """A group of the stages of one candidate, mapped over a list of them."""

        @task_group(group_id=group_id)
        def stages_of(candidate: XComArg) -> None:
            for stage in stages:
                first, last[stage.name] = factory.stage(stage, candidate)
                for name in graph.edges(stage.name):
                    if graph[name].mapped:
                        last[name] >> first

        return stages_of.expand(candidate=candidates)

    for kind, candidates in lists.items():
        groups[kind] = mapped([s for s in graph.stages if s.candidates == kind], candidates, GROUPS[kind])
    for stage in graph.stages:
        if not stage.mapped and not graph.is_optional(stage.name):
            first, last[stage.name] = factory.stage(stage)
            connect(stage, first)
    for stage in graph.stages:
        if stage.mapped:
            for name in graph.edges(stage.name):
                if not graph[name].mapped:
                    last[name] >> groups[stage.candidates]

    branch = PromotionBranch(
        task_id="branch",
        plan_task="plan",
        gate=GATE,
        approval="approval",
        action=PROMOTE,
        trigger_rule=TriggerRule.NONE_FAILED,
        doc_md="Goes on to the promotion, or past it: after a rejection, or when the plan says so.",
    )
    approval = factory.approval(
        "Promote {{ ti.xcom_pull(task_ids='gate', key='facts')['chosen'] }} on "
        "{{ ti.xcom_pull(task_ids='plan', key='plan')['dataset'] }}@"
        "{{ ti.xcom_pull(task_ids='plan', key='plan')['release'] }}?",
        "The gate has accepted it:\n\n"
        "{% for reason in ti.xcom_pull(task_ids='gate', key='facts').get('reasons', []) %}- {{ reason }}\n{% endfor %}",
    )
    _, promote = factory.stage(graph[PROMOTE])
    promote.trigger_rule = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
    last[PROMOTE] = promote
    for stage in graph.stages:
        if graph.is_optional(stage.name) and stage.name != PROMOTE:
            first, last[stage.name] = factory.stage(stage)
            connect(stage, first)
    record = factory.task(
        "record",
        RecordCommand(FromTasks(tuple(factory.source(stage.name) for stage in graph.stages))),
        doc="Keeps the run's whole dvc.lock, also after a rejection.",
        trigger_rule=TriggerRule.NONE_FAILED,
    )
    for name in graph.edges(PROMOTE):
        last[name] >> branch
    chain(branch, approval, promote)
    branch >> promote
    for name in graph.last():
        last[name] >> record
    if settings.review == "after_runs":
        # Not after the end of the run: it may fail there, and people decide on descriptions, not on what they teach.
        last[DESCRIBE] >> factory.task(
            "announce",
            AnnounceCommand(factory.doubts, FromTasks((factory.source(DESCRIBE),))),
            doc="Starts the DAG `review` where nobody was asked about descriptions that wait for a person.",
            trigger_rule=TriggerRule.NONE_FAILED,
            outlets=[factory.doubts],
        )
