"""Whole runs of the DAGs, `airflow dags test` way, with a fake components' environment."""

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def run(bag: Any, dag_id: str, conf: dict[str, Any] | None = None) -> tuple[str, dict[str, str]]:
    """Run a DAG; its state, and that of each task instance."""
    found = bag.get_dag(dag_id).test(run_conf=conf or {})
    states = {}
    for ti in found.get_task_instances():
        name = ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]"
        states[name] = str(ti.state)
    return str(found.state), states


def test_a_run_goes_from_plan_to_record_and_each_task_gets_the_entries_that_its_stage_reads(
    database: None, bag: Any, components: Any, project: Path
) -> None:
    from clinprompt_dags.graph import load_graph

    state, states = run(bag, "retrain", {"release": "r1", "overrides": {"training": {"shots": 4}}})
    assert state == "success"
    assert states.pop("approval") == "skipped"
    assert set(states.values()) == {"success"}
    order = list(dict.fromkeys(call["what"] for call in components.calls))
    assert order[:3] == ["plan", "stage:ingest", "stage:validate"]
    assert set(order[-6:-2]) == {"stage:gate", "stage:explain", "stage:report", "stage:promote"}
    assert order[-2:] == ["stage:attach", "record"]
    (plan,) = components.asked("plan")
    assert plan["task"]["release"] == "r1"
    assert plan["task"]["overrides"] == {"training": {"shots": 4}}
    assert "clinprompt-data" in plan["task"]["images"]

    graph = load_graph(project)
    stages = {
        f"{call['what']}:{call['cell']}": [entry["stage"] for entry in call["task"]["entries"]]
        for call in components.calls
        if "entries" in call["task"]
    }
    assert stages["stage:ingest:"] == []
    cells = {"methods": ["zero_shot-1", "coop-1", "coop-2"], "taught": ["cilmp-1"]}

    def entries(names: Iterable[str], of: dict[str, list[str]]) -> list[str]:
        lists = {
            name: [f"-{cell}" for cell in of[graph[name].candidates]] if graph[name].mapped else [""] for name in names
        }
        return [f"{name}@brain-phantom{cell}" for name, cells in lists.items() for cell in cells]

    assert stages["stage:evaluate:coop-1"] == entries(graph["evaluate"].upstream, {"methods": ["coop-1"]})
    assert "tune@brain-phantom-coop-1" in stages["stage:evaluate:coop-1"]
    assert "describe@brain-phantom" in stages["stage:tune_taught:cilmp-1"]
    assert "describe@brain-phantom" not in stages["stage:tune:coop-1"]
    assert stages["stage:gate:"] == entries(graph["gate"].upstream, cells)
    assert stages["record:"] == entries([stage.name for stage in graph.stages], cells)
    for call in components.asked("stage:tune"):
        about = call["task"]["airflow"]
        assert about["task_id"] == "candidates.tune"
        assert about["url"].endswith(f"/tasks/candidates.tune/mapped/{about['map_index']}?try_number=1")


def test_what_the_run_cache_has_skips_its_gpu_task_alone(database: None, bag: Any, components: Any) -> None:
    components.answer({"probe:cache": [{"hit": True}], "probe:tune:coop-1": [{"hit": True}]})
    state, states = run(bag, "retrain")
    assert state == "success"
    assert states["cache"] == "skipped"
    tuned = {name: value for name, value in states.items() if name.startswith("candidates.tune")}
    assert sorted(tuned.values()) == ["skipped", "success", "success"]
    assert tuned["candidates.tune[1]"] == "skipped"
    evaluated = {name: value for name, value in states.items() if name.startswith("candidates.evaluate")}
    assert set(evaluated.values()) == {"success"}
    assert not components.asked("stage:cache")
    given = [entry["stage"] for entry in components.asked("record")[0]["task"]["entries"]]
    assert "cache@brain-phantom" in given
    assert "tune@brain-phantom-coop-1" in given


def test_a_failing_describe_stops_the_taught_candidates_alone(database: None, bag: Any, components: Any) -> None:
    components.answer({"stage:describe": [{"exit": 65}]})
    state, states = run(bag, "retrain")
    assert state == "failed"
    evaluated = {name: value for name, value in states.items() if name.startswith("candidates.evaluate")}
    assert set(evaluated.values()) == {"success"}
    assert len(evaluated) == 3
    assert not components.asked("stage:tune_taught")
    assert not components.asked("stage:gate")  # which has not seen all candidates


@pytest.mark.parametrize("stage", ["explain", "report"])
def test_a_failing_picture_stops_no_promotion(database: None, bag: Any, components: Any, stage: str) -> None:
    components.answer({f"stage:{stage}": [{"exit": 70}]})
    _, states = run(bag, "retrain")
    assert (states[stage], states["promote"]) == ("failed", "success")


@pytest.mark.parametrize(
    "facts",
    [{"verdict": "rejected"}, {"already_champion": True}],
    ids=["rejected", "already-champion"],
)
def test_a_gate_with_nothing_to_promote_is_a_branch(
    database: None, bag: Any, components: Any, facts: dict[str, Any]
) -> None:
    components.answer({"stage:gate": [{"facts": facts}]})
    state, states = run(bag, "retrain")
    assert state == "success"
    assert states["approval"] == states["promote"] == "skipped"
    assert states["record"] == "success"
    stages = [entry["stage"] for entry in components.asked("record")[0]["task"]["entries"]]
    assert "promote@brain-phantom" not in stages


def test_a_plan_that_says_never_promotes_nothing(database: None, bag: Any, components: Any) -> None:
    components.answer({"plan": [{"plan": {"promote": False}}]})
    state, states = run(bag, "retrain", {"promote": "never"})
    assert (state, states["promote"], states["record"]) == ("success", "skipped", "success")
    assert components.asked("plan")[0]["task"]["promote"] == "never"


def test_rejected_data_fails_at_once_and_nothing_is_trained(database: None, bag: Any, components: Any) -> None:
    components.answer({"stage:validate": [{"exit": 65}]})
    state, states = run(bag, "retrain")
    assert (state, states["validate"]) == ("failed", "failed")
    assert len(components.asked("stage:validate")) == 1
    assert not components.asked("stage:tune")
    assert not components.asked("record")


def test_a_service_that_comes_back_is_waited_for_and_out_of_memory_is_tried_with_twice_the_micro_batches(
    database: None, bag: Any, components: Any
) -> None:
    memory = [{"exit": 72}, {"kill": int(signal.SIGKILL)}, {}]
    components.answer({"stage:ingest": [{"exit": 69}, {}], "stage:tune:coop-1": memory})
    state, _ = run(bag, "retrain", {"promote": "never"})
    assert state == "success"
    assert [call["task"]["airflow"]["try_number"] for call in components.asked("stage:ingest")] == [1, 2]
    counts = [
        call["environment"]["CLINPROMPT_MICRO_BATCHES"]
        for call in components.asked("stage:tune")
        if call["cell"] == "coop-1"
    ]
    assert counts == ["1", "2", "2"]
    others = {call["environment"]["CLINPROMPT_MICRO_BATCHES"] for call in components.asked("stage:evaluate")}
    assert others == {"1"}


def test_an_entry_that_is_too_long_fails(database: None, bag: Any, components: Any) -> None:
    components.answer({"stage:ingest": [{"pad": 2048}]})
    state, states = run(bag, "retrain")
    assert (state, states["ingest"]) == ("failed", "failed")
    assert len(components.asked("stage:ingest")) == 1


def test_the_environment_holds_what_components_need_and_no_more(
    database: None, bag: Any, components: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLINPROMPT_MLFLOW", "http://someone:hush@mlflow.test:5000/https")
    store = (
        '{"conn_type": "aws", "login": "id", "password": "key", "extra": {"store": "s3://b/p", "endpoint_url": "E"}}'
    )
    monkeypatch.setenv("AIRFLOW_CONN_CLINPROMPT_STORE", store)
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "1")
    run(bag, "sweep")
    environment = components.asked("sweep")[0]["environment"]
    assert environment["MLFLOW_TRACKING_URI"] == "https://mlflow.test:5000"
    assert environment["MLFLOW_TRACKING_PASSWORD"] == "hush"  # noqa: S105
    assert (environment["CLINPROMPT_STORE"], environment["AWS_SECRET_ACCESS_KEY"]) == ("s3://b/p", "key")
    assert environment["AWS_ENDPOINT_URL"] == "E"
    assert not {"PYTHONPATH", "SECRET_OF_THE_WORKER"} & set(environment)
    assert not [name for name in environment if name.startswith("AIRFLOW")]


def test_a_sweep_sends_one_event_per_release(database: None, bag: Any, components: Any) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    state, states = run(bag, "sweep", {"releases": ["r1", "r2"]})
    assert state == "success"
    assert states["announce_brain-phantom"] == "success"
    assert states["announce_pneumoniamnist"] == "skipped"
    assert components.asked("sweep")[0]["task"]["releases"] == ["r1", "r2"]
    with create_session() as session:
        events = session.scalars(select(AssetEvent).order_by(AssetEvent.id.desc()).limit(2)).all()
        assert sorted(event.partition_key for event in events) == ["brain-phantom@r1", "brain-phantom@r2"]
        assert {event.name for event in events} == {"dataset/brain-phantom"}
        assert events[0].extra == {"releases": ["r1", "r2"]}


def test_promote_takes_the_entries_of_the_recorded_run(
    database: None, bag: Any, components: Any, project: Path
) -> None:
    from clinprompt_dags.graph import load_graph

    state, states = run(bag, "promote", {"dataset": "brain-phantom", "release": "r1"})
    assert (state, states["approval"], states["promote"]) == ("success", "skipped", "success")
    (call,) = components.asked("stage:promote")
    stages = [entry["stage"].partition("@")[0] for entry in call["task"]["entries"]]
    assert "tune" not in stages  # the fake's record has none
    assert set(stages) == set(load_graph(project)["promote"].upstream) & {
        "ingest",
        "validate",
        "describe",
        "gate",
        "report",
    }
    assert call["task"]["plan"]["release"] == "r1"
    (call,) = components.asked("stage:attach")
    given = [entry["stage"].partition("@")[0] for entry in call["task"]["entries"]]
    assert (states["attach"], given) == ("success", ["report", "promote"])


def test_rollback_calls_the_registry_once_even_when_it_fails(database: None, bag: Any, components: Any) -> None:
    components.answer({"rollback": [{"exit": 69}]})
    state, _ = run(bag, "rollback", {"dataset": "brain-phantom", "reason": "-bad on B", "version": "3"})
    assert state == "failed"
    (call,) = components.calls
    assert call["argv"] == [
        "-m",
        "registry",
        "rollback",
        "brain-phantom",
        "--reason=-bad on B",
        "--version=3",
        "--json",
    ]


def test_a_run_of_a_partition_is_of_its_release(database: None, bag: Any, components: Any) -> None:
    from clinprompt_dags.commands import PlanCommand

    class Instance:
        dag_id, run_id, task_id, map_index, try_number, log_url = "retrain", "r", "plan", -1, 1, "url"

    class Run:
        partition_key = "pneumoniamnist@r7"

    params = dict.fromkeys(("methods", "seeds", "overrides", "promote"))
    context = {"params": {"dataset": "brain-phantom", "release": None, **params}, "dag_run": Run, "ti": Instance}
    task = PlanCommand(None).task(context, {})
    assert (task["dataset"], task["release"]) == ("pneumoniamnist", "r7")
