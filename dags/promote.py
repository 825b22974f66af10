"""The DAG `promote`: promotes what a recorded run has decided."""

from airflow.sdk import Param, TriggerRule, chain

from clinprompt_dags.commands import PromotionCommand, StageCommand
from clinprompt_dags.entries import AllOf, FromRecord, FromTasks
from clinprompt_dags.factory import Factory
from clinprompt_dags.operators import PromotionBranch

DOC = """
Promotes the decision of a run of `retrain` that was recorded without a promotion: one with `promote: never`, or one
whose approval was rejected or came too late. Nothing is computed anew, and a decision that a newer champion has
overtaken is refused.
"""

factory = Factory()
graph, settings = factory.graph, factory.settings

with factory.dag(
    "promote",
    description="Promote what a recorded run has decided",
    doc_md=DOC,
    schedule=None,
    max_active_runs=1,
    params={
        "dataset": Param(
            settings.datasets[0], type="string", enum=list(settings.datasets), description="A card in datasets/."
        ),
        "release": Param(None, type=["null", "string"], description="By default that of the newest recorded run."),
        "approval": Param(
            settings.approval,
            type="string",
            enum=["required"] if settings.approval == "required" else ["none", "required"],
            description="Whether a person is asked; registry.approval: required can't be undone here.",
        ),
    },
) as dag:
    promotion = factory.task(
        "promotion", PromotionCommand(factory.images), doc="Finds the recorded run and its entries."
    )
    branch = PromotionBranch(task_id="branch", plan_task="promotion", approval="approval", action="promote")
    approval = factory.approval(
        "Promote the decision of {{ ti.xcom_pull(task_ids='promotion') }}?",
        "It is the decision of a recorded run; its report is in the record.",
    )
    before_promote, before_attach = (
        FromRecord("promotion", frozenset(graph[name].upstream) - {"promote"}) for name in ("promote", "attach")
    )
    promote = factory.task(
        "promote",
        StageCommand("promote", before_promote, plan_task="promotion"),
        graph["promote"].need,
        graph["promote"].about,
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
    )
    attach = factory.task(
        "attach",
        StageCommand("attach", AllOf((before_attach, FromTasks((factory.source("promote"),)))), plan_task="promotion"),
        graph["attach"].need,
        graph["attach"].about,
    )
    chain(promotion, branch, approval, promote, attach)
    branch >> promote
