"""Whole runs of the DAG `review`: people's answers are given over Airflow's own REST API, and time runs out as in its
scheduler."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import load_bag

pytestmark = pytest.mark.slow

NASTY = "A glioma is <b>bright</b> {{ 6 * 7 }} [see](http://x.test) www.x.test `\u202etick``\nand dark."
WHY = "as many samples say the opposite"


def sentence(number: int, text: str = "A glioma is bright on T2.", why: str = WHY) -> dict[str, str]:
    """One that waits."""
    return {"digest": f"{number:064x}", "text": text, "why": why, "state": "rejected by the checks (undecided)"}


def question(class_id: str, *sentences: dict[str, str]) -> dict[str, Any]:
    """A question, as the components make it."""
    return {"class": class_id, "name": class_id.title(), "part": 1, "parts": 1, "sentences": list(sentences)}


TWO = [question("glioma", sentence(1, NASTY), sentence(2), sentence(3)), question("no_tumor", sentence(4))]


class People:
    """Answers what waits, as an Airflow user over the REST API."""

    def __init__(self, application: Any, name: str | None) -> None:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
        from fastapi.testclient import TestClient

        self.client = TestClient(application, base_url="http://airflow.test")
        if name is not None:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role="ADMIN"))
            self.client.headers["Authorization"] = f"Bearer {token}"

    def waiting(self) -> list[dict[str, Any]]:
        """The questions without an answer."""
        found = self.client.get("/api/v2/dags/review/dagRuns/~/hitlDetails", params={"response_received": False})
        assert found.status_code == 200, found.text
        details: list[dict[str, Any]] = found.json()["hitl_details"]
        return [one for one in details if one["task_instance"]["state"] == "awaiting_input"]

    def answer(self, of: dict[str, Any], chosen: dict[str, Any]) -> int:
        """Answer one; the HTTP status."""
        ti = of["task_instance"]
        url = f"/api/v2/dags/review/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/{ti['map_index']}"
        form = {"chosen_options": ["Save"], "params_input": chosen}
        return int(self.client.patch(f"{url}/hitlDetails", json=form).status_code)


@contextmanager
def meanwhile(act: Callable[[], bool]) -> Iterator[None]:
    """Do something again and again beside the block, until it says that it is done; an error in it is the block's."""
    ended, failed = threading.Event(), list[BaseException]()

    def loop() -> None:
        try:
            while not ended.is_set() and not act():
                time.sleep(0.2)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failed, failed


def run(bag: Any, conf: dict[str, Any], act: Callable[[], bool]) -> tuple[str, dict[str, str]]:
    """Run the DAG beside people or a clock; its state, and that of each task instance."""
    with meanwhile(act):
        found = bag.get_dag("review").test(run_conf=conf)
    instances = found.get_task_instances()
    names = [ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]" for ti in instances]
    return str(found.state), dict(zip(names, [str(ti.state) for ti in instances], strict=True))


def nobody() -> bool:
    """No answer is needed."""
    return True


@pytest.fixture(scope="module")
def application(airflow_home: Path, database: None) -> Any:
    """Airflow's API server."""
    from airflow.api_fastapi.app import create_app

    (airflow_home / "airflow").mkdir(exist_ok=True)  # where it writes passwords down
    return create_app(apps="core")


@pytest.fixture(scope="module")
def people(application: Any) -> People:
    """A doctor."""
    return People(application, "Dr Who")


def test_each_answer_is_kept_with_the_name_of_who_gave_it(bag: Any, components: Any, people: People) -> None:
    components.answer({"review": [{"questions": TWO}]})
    chosen = {
        "glioma": {"sentence_01": "reject", "sentence_02": "accept", "sentence_03": "later", "why": "=seen\nit"},
        "no_tumor": {"sentence_01": "accept", "why": None},
    }
    asked: dict[str, dict[str, Any]] = {}

    def act() -> bool:
        for one in people.waiting():
            class_id = "glioma" if "Glioma" in one["subject"] else "no_tumor"
            asked[class_id] = one
            assert people.answer(one, chosen[class_id]) == 200
        return len(asked) == 2

    state, states = run(bag, {"dataset": "brain-phantom", "release": "r1"}, act)
    assert state == "success"
    assert set(states.values()) == {"success"}
    assert components.asked("review")[0]["task"]["release"] == "r1"
    kept = {call["task"]["decisions"][0]["class"]: call["task"] for call in components.asked("decide")}
    rows = kept["glioma"]["decisions"]
    assert [(row["digest"][-1], row["decision"]) for row in rows] == [("1", "rejected"), ("2", "accepted")]
    assert {(row["by"], row["reason"]) for row in rows} == {("Dr Who", "=seen it")}
    assert rows[0]["text"] == NASTY
    assert kept["glioma"]["answered"].startswith("20")
    assert kept["no_tumor"]["dataset"] == "brain-phantom"
    [row] = kept["no_tumor"]["decisions"]
    assert (row["by"], row["reason"]) == ("Dr Who", f"asked, as {WHY}")

    shown = asked["glioma"]
    assert shown["subject"] == "What is said of Glioma: is it right? (brain-phantom@r1)"
    assert "` Glioma `" in shown["body"]
    assert "bright" not in shown["body"]  # which is Markdown, and the sentences are not ours
    cell = "A glioma is <b>bright</b> {{ 6 * 7 }} [see](http://x.test) www.x.test `\ufffdtick`` and dark."
    first = shown["params"]["sentence_01"]
    assert first["value"] == "later"
    assert first["schema"]["title"] == f"1. {cell}"
    assert first["description"] == f"rejected by the checks (undecided): {WHY}"
    assert first["schema"]["enum"] == ["accept", "reject", "later"]


def test_what_nobody_answers_in_time_stays_as_it_is(
    bag: Any, components: Any, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    components.answer({"review": [{"questions": TWO}]})
    ask = bag.get_dag("review").get_task("questions.ask")
    monkeypatch.setattr(ask, "response_timeout", timedelta(seconds=0))
    scheduler = SchedulerJobRunner(Job())

    def act() -> bool:
        scheduler.check_awaiting_input_timeouts()
        return False

    state, states = run(bag, {"dataset": "brain-phantom"}, act)
    assert state == "success"
    assert {states["questions.ask[0]"], states["questions.ask[1]"]} == {"success"}
    assert {states["questions.keep[0]"], states["questions.keep[1]"]} == {"skipped"}
    assert not components.asked("decide")


def test_an_answer_that_the_form_does_not_offer_is_asked_for_again(bag: Any, components: Any, people: People) -> None:
    components.answer({"review": [{"questions": TWO[1:]}]})
    choices = ["perhaps", "reject"]

    def act() -> bool:
        for one in people.waiting():
            assert people.answer(one, {"sentence_01": choices.pop(0), "why": "seen"}) == 200
        return not choices

    state, _ = run(bag, {"dataset": "brain-phantom"}, act)
    assert state == "success"
    [call] = components.asked("decide")
    assert call["task"]["decisions"][0]["decision"] == "rejected"


def test_with_nothing_to_ask_the_rest_is_skipped(database: None, bag: Any, components: Any) -> None:
    from airflow.sdk import Asset
    from airflow.sdk.exceptions import AirflowSkipException

    from clinprompt_dags.questions import ReviewCommand

    state, states = run(bag, {"dataset": "brain-phantom"}, nobody)
    assert (state, states["list"]) == ("success", "skipped")
    assert {value for name, value in states.items() if name != "list"} <= {"skipped"}
    told = {"dataset": "brain-phantom", "release": "r2", "descriptions": 12, "questions": []}
    with pytest.raises(AirflowSkipException, match="of brain-phantom@r2 none waits for a question"):
        ReviewCommand(Asset("doubts")).finish({}, told)


def test_a_card_that_keeps_no_decisions_fails_before_anybody_is_asked(
    database: None, bag: Any, components: Any
) -> None:
    components.answer({"review": [{"exit": 64}]})
    state, states = run(bag, {"dataset": "brain-phantom"}, nobody)
    assert (state, states["list"]) == ("failed", "failed")
    assert len(components.calls) == 1


def test_a_dataset_without_a_card_is_refused_by_name(people: People, bag: Any) -> None:
    from airflow.dag_processing.dagbag import sync_bag_to_db

    sync_bag_to_db(bag, "dags-folder", None)
    people.client.patch("/api/v2/dags/review", json={"is_paused": False})
    found = people.client.post("/api/v2/dags/review/dagRuns", json={"logical_date": None, "conf": {"dataset": "other"}})
    assert found.status_code == 400
    assert "other" in found.text
    assert "brain-phantom" in found.text


def test_nobody_answers_without_a_login(bag: Any, components: Any, application: Any, people: People) -> None:
    components.answer({"review": [{"questions": TWO[1:]}]})
    statuses, stranger = list[int](), People(application, None)

    def act() -> bool:
        for one in people.waiting():
            statuses.append(stranger.answer(one, {}))
            statuses.append(people.answer(one, {}))
        return bool(statuses)

    state, states = run(bag, {"dataset": "brain-phantom"}, act)
    assert statuses == [401, 200]
    assert (state, states["questions.keep[0]"]) == ("success", "skipped")  # nothing was chosen


@pytest.fixture
def reviewing(database: None, project: Path) -> Iterator[Any]:
    """The DAGs where reviews follow runs, and the card of brain-phantom keeps decisions."""
    params, card = project / "params.yaml", project / "datasets" / "brain-phantom.yaml"
    kept = {path: path.read_text(encoding="utf-8") for path in (params, card)}
    params.write_text(kept[params].replace("review: by_hand", "review: after_runs"), encoding="utf-8")
    card.write_text(f"{kept[card]}\nknowledge: {{decisions: brain-phantom.decisions.csv}}\n", encoding="utf-8")
    yield load_bag(project)
    for path, text in kept.items():
        path.write_text(text, encoding="utf-8")


def announced() -> list[tuple[str, dict[str, str]]]:
    """The events that reviews wait for: partition key and extra."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = [event for event in session.scalars(select(AssetEvent)) if event.name == "descriptions-in-doubt"]
        return [(event.partition_key, event.extra) for event in events]


def test_where_reviews_follow_runs_one_starts_for_what_nobody_was_asked_about_also_when_the_run_fails_after_describe(
    reviewing: Any, components: Any
) -> None:
    from airflow.sdk import PartitionedAssetTimetable

    assert reviewing.import_errors == {}
    schedule = reviewing.get_dag("review").schedule
    assert isinstance(schedule, PartitionedAssetTimetable)
    components.answer(
        {
            "unasked": [{"unasked": 2}, {"unasked": 0}],
            "stage:describe": [{"facts": {"waiting": 0}}],  # it is not what this run has made that counts
            "probe:describe": [{}, {"hit": True}],
            "stage:gate": [{"exit": 64}, {}],
        }
    )
    ended = []
    for _ in range(2):
        found = reviewing.get_dag("retrain").test(run_conf={"release": "r1", "promote": "never"})
        states = {ti.task_id: str(ti.state) for ti in found.get_task_instances()}
        ended.append((str(found.state), states["describe"], states["announce"]))
    assert ended == [("failed", "success", "success"), ("success", "skipped", "skipped")]
    assert announced() == [("brain-phantom@r1", {"descriptions": "5" * 32})]
    for call in components.asked("unasked"):  # of the task, and of the probe that has found it in the run cache
        assert [entry["stage"] for entry in call["task"]["entries"]] == ["describe@brain-phantom"]


def test_a_review_that_an_event_starts_asks_about_the_descriptions_that_it_names() -> None:
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    from clinprompt_dags.questions import ReviewCommand

    doubts = Asset("descriptions-in-doubt")

    def asked(*events: tuple[int, dict[str, str]]) -> dict[str, Any]:
        given = [
            AssetEventDagRunReferenceResult(
                asset={"name": doubts.name, "uri": doubts.uri, "extra": {}},
                extra=extra,
                source_task_id=None,
                source_dag_id=None,
                source_run_id=None,
                source_map_index=None,
                source_aliases=[],
                timestamp=datetime(2026, 5, 1, hour, tzinfo=UTC),
            )
            for hour, extra in events
        ]
        context = {
            "ti": SimpleNamespace(dag_id="review", run_id="1", task_id="list", map_index=-1, try_number=1, log_url=""),
            "dag_run": SimpleNamespace(partition_key="brain-phantom@r1"),
            "triggering_asset_events": TriggeringAssetEventsAccessor.build(given),
        }
        return ReviewCommand(doubts).task(context, {})

    named = asked((3, {"descriptions": "b" * 32}), (2, {"descriptions": "a" * 32}))
    assert (named["dataset"], named["release"], named["descriptions"]) == ("brain-phantom", "r1", "b" * 32)
    assert [asked()["descriptions"], asked((1, {}))["descriptions"]] == [None, None]  # by hand, or by REST
