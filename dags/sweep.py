"""The DAG `sweep`: looks for releases that no run has recorded, and starts a run for each through its asset."""

from typing import Any

from airflow.sdk import Asset, CronTriggerTimetable, Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException

from clinprompt_dags.commands import PartitionKey, SweepCommand
from clinprompt_dags.factory import Factory

DOC = """
Asks the store for releases without a recorded run and sends, for each, an event with the partition key
`dataset@release` to the asset of its dataset. Every event starts a run of `retrain`.

On its schedule it looks at the newest release of each dataset. Triggered by hand with `releases: missing`, or with a
list of names, it backfills: Airflow's own backfill counts in dates, which releases are not.
"""

factory = Factory()
settings = factory.settings

with factory.dag(
    "sweep",
    description="Start retrain for releases that have no run yet",
    doc_md=DOC,
    schedule=CronTriggerTimetable(settings.sweep, timezone="UTC"),
    max_active_runs=1,
    params={
        "dataset": Param(
            None, type=["null", "string"], enum=[None, *settings.datasets], description="By default all cards."
        ),
        "releases": Param(
            "latest",
            description="latest, missing (all without a run), or a list of names.",
            anyOf=[
                {"type": "string", "enum": ["latest", "missing"]},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ],
        ),
    },
) as dag:
    look = factory.task("look", SweepCommand(), doc="Lists `dataset@release` of what has no run.")

    def announce(dataset: str, asset: Asset) -> None:
        """A task per dataset: one that has nothing to tell is skipped, and so sends no event."""

        @task(
            task_id=f"announce_{dataset}",
            outlets=[asset],
            trigger_rule=TriggerRule.ALL_SUCCESS,
            doc_md=f"Sends an event of `{asset.name}` for each new release.",
        )
        def send(unrecorded_releases: list[str], *, outlet_events: Any = None) -> list[str]:
            keys = [key for key in unrecorded_releases if PartitionKey.parse(key).dataset == dataset]
            if not keys:
                raise AirflowSkipException(f"{dataset} has no release without a run.")
            outlet_events[asset].add_partitions(keys)
            outlet_events[asset].extra = {"releases": [PartitionKey.parse(key).release for key in keys]}
            return keys

        send(look.output)

    for name, dataset_asset in factory.assets.items():
        announce(name, dataset_asset)
