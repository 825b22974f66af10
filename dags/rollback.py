"""The DAG `rollback`: gives the champion's place back to the version before it."""

from dataclasses import replace

from airflow.sdk import Param, TriggerRule, chain

from clinprompt_dags.commands import RollbackCommand
from clinprompt_dags.factory import LIGHT, Factory
from clinprompt_dags.operators import PromotionBranch

DOC = """
Moves the alias `champion` back to the version before it, with a reason. What was rolled back is quarantined: no
schedule promotes it again. It is not tried again by itself: a second try would go one version further back.
"""

factory = Factory()
settings = factory.settings

with factory.dag(
    "rollback",
    description="Go back to the champion before this one",
    doc_md=DOC,
    schedule=None,
    max_active_runs=1,
    params={
        "dataset": Param(
            settings.datasets[0], type="string", enum=list(settings.datasets), description="A card in datasets/."
        ),
        "reason": Param(type="string", minLength=3, description="Kept with the version."),
        "version": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]+$",
            description="The champion meant; another one is left alone.",
        ),
        "approval": Param("none", type="string", enum=["none", "required"], description="Whether a person is asked."),
    },
) as dag:
    branch = PromotionBranch(task_id="branch", approval="approval", action="rollback")
    approval = factory.approval("Roll back {{ params.dataset }}?", "The reason given: {{ params.reason }}")
    rollback = factory.task(
        "rollback",
        RollbackCommand(),
        replace(LIGHT, image="registry", pool="promotion", retries=0),
        "Runs `python -m registry rollback`.",
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
    )
    chain(branch, approval, rollback)
    branch >> rollback
