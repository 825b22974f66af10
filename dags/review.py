"""The DAG `review`: asks people about descriptions that the checks are in doubt of, and keeps their decisions."""

from airflow.sdk import Param, PartitionedAssetTimetable, TriggerRule, XComArg, task_group

from clinprompt_dags.factory import Factory
from clinprompt_dags.questions import AnswerCommand, ReviewCommand

DOC = """
Lists the descriptions of a recorded run, or of one that has announced them, on which the checks are in doubt, and
asks about them under *Required Actions*, up to ten sentences of a class at a time: accept, reject or later. Each
answer is kept as soon as it is given, by the SHA-256 of the sentence, and holds for every run of `retrain` that is
planned after it; one that has its plan keeps to it. What nobody has answered after `airflow.approval_hours` stays as
the checks left it.

The card must name a file of decisions (`knowledge.decisions`). What that file says wins over the answers.
"""

factory = Factory()
settings = factory.settings

with factory.dag(
    "review",
    description="Ask people about descriptions in doubt",
    doc_md=DOC,
    schedule=PartitionedAssetTimetable(assets=factory.doubts) if settings.review == "after_runs" else None,
    max_active_runs=4,
    params={
        "dataset": Param(
            settings.datasets[0], type="string", enum=list(settings.datasets), description="A card in datasets/."
        ),
        "release": Param(None, type=["null", "string"], description="By default that of the newest recorded run."),
    },
) as dag:
    waiting = factory.task(
        "list",
        ReviewCommand(factory.doubts),
        doc="Lists what waits for a person, and notes that it was asked about; skips the rest if nothing waits.",
        max_active_tis_per_dag=1,  # so that of two reviews that start at once the second one sees the first one's note
    )

    @task_group(group_id="questions")
    def questions(question: XComArg) -> None:
        """A question and what becomes of its answer."""
        ask = factory.question("ask", question)
        keep = factory.task(
            "keep",
            AnswerCommand("questions.ask"),
            doc="Keeps what was decided in the store; skipped where nobody has decided.",
            trigger_rule=TriggerRule.ALL_SUCCESS,
        )
        ask >> keep

    questions.expand(question=waiting.output)
