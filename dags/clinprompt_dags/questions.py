"""Asks people about descriptions that the checks are in doubt of, and keeps what they decide.

The sentences are a language model's: nothing in them may act on who reads them, on Airflow's page or on its templates.
"""

import unicodedata
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Asset, Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowSkipException

from clinprompt.contract.tasks import PartitionKey
from clinprompt_dags.commands import TaskCommand, airflow_facts, asked_release
from clinprompt_dags.entries import PLAN, Candidate, Context, Entries, read_plan

SAVE, WHY = "Save", "why"
_DESCRIPTIONS = "descriptions"  # the key of an event's extra: the md5 of those that it announces
LATER = "later"
_DECISIONS = {"accept": "accepted", "reject": "rejected"}  # what a person chooses, and what it is called in tables
_LONGEST = 300  # characters of a reason

Question = dict[str, Any]  # as `python -m workspace review` answers: sentences of one class


class AnnounceCommand(TaskCommand):
    """Send an event of the run's release where nobody was asked about descriptions that wait for a person."""

    command = "unasked"

    def __init__(self, asset: Asset, entries: Entries) -> None:
        self.asset = asset
        self.entries = entries  # of the stage that makes descriptions

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """The run's descriptions, whether it has made them or the run cache had them."""
        plan, entries = read_plan(context["ti"], PLAN), self.entries.take(context)
        return {"plan": plan, "entries": entries, "airflow": airflow_facts(context)}

    def finish(self, context: Context, result: dict[str, Any]) -> str:
        """Send the event, with the digest of the descriptions: the run has no record yet, and may come to none."""
        if not result["unasked"]:
            raise AirflowSkipException(f"Nobody is asked: {result['why']}.")
        key, event = str(PartitionKey(result["dataset"], result["release"])), context["outlet_events"][self.asset]
        event.add_partitions([key])
        event.extra = {_DESCRIPTIONS: result["descriptions"]}
        return key


class ReviewCommand(TaskCommand):
    """List the descriptions that wait for a person: those that an event of `asset` announces, or a recorded run's."""

    command = "review"

    def __init__(self, asset: Asset) -> None:
        self.asset = asset

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """Which release's run, or which descriptions; of several events the last one holds."""
        dataset, release = asked_release(context)
        events = sorted(context["triggering_asset_events"].get(self.asset, ()), key=lambda event: event.timestamp)
        announced = events[-1].extra.get(_DESCRIPTIONS) if events else None
        asked = {"dataset": dataset, "release": release, "descriptions": announced}
        return {**asked, "airflow": airflow_facts(context)}

    def finish(self, context: Context, result: dict[str, Any]) -> list[Question]:
        """Return the questions; where there are none, say so and skip what follows."""
        if not result["questions"]:
            run = PartitionKey(result["dataset"], result["release"])
            raise AirflowSkipException(
                f"Nothing to ask: of the {result['descriptions']} descriptions of {run} none waits for a question."
            )
        questions: list[Question] = result["questions"]
        return questions


class AnswerCommand(TaskCommand):
    """Keep the answer to the question of the same map index."""

    command = "decide"

    def __init__(self, asked: str) -> None:
        self.asked = asked  # the task that has asked

    def task(self, context: Context, candidate: Candidate) -> dict[str, Any]:
        """What was decided."""
        ti = context["ti"]
        answer = ti.xcom_pull(task_ids=self.asked, map_indexes=ti.map_index)
        if not answer or not answer["decisions"]:
            raise AirflowSkipException("Nobody has decided: these descriptions stay as the checks left them.")
        return {**answer, "airflow": airflow_facts(context)}

    def finish(self, context: Context, result: dict[str, Any]) -> Any:
        """Return where it is kept."""
        return result


class AskPerson(HITLOperator):
    """Asks about sentences of one class, in a form with a choice for each; what nobody answers is left undecided.

    Args:
        question: `Question`, or where it comes from.
        response_timeout: how long it waits.
    """

    template_fields: Collection[str] = ("question",)

    def __init__(self, *, question: Any, response_timeout: timedelta, **kwargs: Any) -> None:
        super().__init__(
            subject="Are these descriptions right?",
            options=[SAVE],
            defaults=[SAVE],  # with the form's own values, which decide nothing
            response_timeout=response_timeout,
            **kwargs,
        )
        self.question = question

    def execute(self, context: Any) -> Any:
        """Ask."""
        self._fill()
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Take the answer, in a process of its own: who decided what, and why; no decisions where nobody answered.

        Raises:
            ParamValidationError: the answer holds what the form does not offer; people are asked again.
        """
        self._fill()
        answer = super().execute_complete(context, event)
        person = answer["responded_by_user"]
        rows = decisions(self.question, answer["params_input"], person["name"] or person["id"]) if person else []
        if not person:
            self.log.info("Nobody has answered in time: the descriptions stay as the checks left them.")
        answered = answer["responded_at"].isoformat()
        return {"dataset": self.question["dataset"], "answered": answered, "decisions": rows}

    def _fill(self) -> None:
        self.subject = subject(self.question)
        self.body = body(self.question)
        self.params = form(self.question)


def subject(question: Question) -> str:
    """The question's headline."""
    run = PartitionKey(question["dataset"], question["release"])
    part = f", {question['part']} of {question['parts']}" if question["parts"] > 1 else ""
    return f"What is said of {plain(question['name'])}: is it right? ({run}{part})"


def body(question: Question) -> str:
    """What the choices mean, in Markdown; the sentences stand in the form, which is no Markdown."""
    return (
        f"Class {code(question['name'])}. Is each sentence true of what its images show?\n\n"
        "- *accept*: it may teach models, from the run that is planned next, whatever the checks say\n"
        "- *reject*: it teaches none\n"
        "- *later*: it stays as the checks left it, and the next review that is started by hand asks again\n\n"
        "Below each choice stands what the checks made of the sentence, and why a person is asked."
    )


def form(question: Question) -> ParamsDict:
    """A choice for each sentence, beside the sentence, and why. Airflow shows titles and descriptions as plain text."""
    fields: dict[str, Any] = {
        _field(number): Param(
            LATER,
            type="string",
            enum=[*_DECISIONS, LATER],
            title=f"{number}. {plain(one['text'])}",  # in letters of the usual size, as a description is not
            description=plain(f"{one['state']}: {one['why']}"),
        )
        for number, one in enumerate(question["sentences"], start=1)
    }
    fields[WHY] = Param(
        None,
        type=["null", "string"],
        maxLength=_LONGEST,
        title="Why",
        description="Kept with all decisions above, for everybody to read: nothing about patients.",
    )
    return ParamsDict(fields)


def decisions(question: Question, chosen: dict[str, Any], by: str) -> list[dict[str, str]]:
    """The rows of a table of decisions that an answer makes."""
    why = plain(str(chosen.get(WHY) or ""))
    return [
        {
            "class": question["class"],
            "digest": one["digest"],
            "decision": _DECISIONS[choice],
            "by": plain(by),
            "reason": why or f"asked, as {plain(one['why'])}",
            "text": one["text"],
        }
        for number, one in enumerate(question["sentences"], start=1)
        if (choice := chosen.get(_field(number), LATER)) != LATER
    ]


def plain(text: str) -> str:
    """One line without characters that can't be seen or turn the direction of what follows."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in _one_line(text))
    return shown.strip()


def code(text: str) -> str:
    """A Markdown code span, in which neither Markdown nor HTML nor an address means anything."""
    shown = plain(text)
    longest, run = 0, 0
    for character in shown:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    return f"{fence} {shown} {fence}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _field(number: int) -> str:
    return f"sentence_{number:02}"
