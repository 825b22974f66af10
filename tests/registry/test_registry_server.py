"""The registry on a real MLflow server: promoted over HTTP, loaded over HTTP, and a server that dies in between."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from fabricate import CLASSES, Run, gate, promote, promote_twice_at_once
from mlflow import MlflowClient
from mlflow.exceptions import RestException
from server import Server

import registry
from clinprompt.errors import BadParams, InputMissing, ServiceDown
from clinprompt.files import sha256_file
from registry import listing, tracking, versions
from registry.__main__ import main
from registry.model_folder import FILES_TAG

pytestmark = [pytest.mark.slow, pytest.mark.minutes]

AIRFLOW = {
    "dag_id": "retrain", "run_id": "scheduled__2026", "task_id": "promote", "map_index": -1, "try_number": 2,
    "url": "https://airflow.example/dags/retrain",
}  # fmt: skip
LINKS = {
    "airflow_dag_id": "retrain", "airflow_run_id": "scheduled__2026", "airflow_task_id": "promote",
    "airflow_try_number": "2", "airflow_url": "https://airflow.example/dags/retrain",
}  # fmt: skip


@pytest.fixture
def run(
    finished: Run,
    fresh_copy: Callable[[Run], Run],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Run:
    """A run with an accepted decision, whose registry is on the server under a name of this test's own."""
    mine = fresh_copy(finished)
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    params = yaml.safe_load((mine.root / "params.yaml").read_text())
    params["registry"] |= {"experiment": name, "candidate_model": f"{name}-candidate", "production_model": name}
    (mine.root / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.delenv("CLINPROMPT_AIRFLOW", raising=False)
    return mine


@pytest.fixture
def name(run: Run) -> str:
    """The production model's name."""
    found: str = yaml.safe_load((run.root / "params.yaml").read_text())["registry"]["production_model"]
    return found


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The component's last result line."""
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def state(name: str) -> tuple[list[int], dict[str, int], int]:
    """The production model's versions and aliases, and the number of candidates."""
    models = {one["name"]: one for one in listing.models()}
    numbers = [version["version"] for version in models[name]["versions"]]
    return numbers, models[name]["aliases"], len(models[f"{name}-candidate"]["versions"])


CONSUMER = """
import json, pathlib, sys
import mlflow
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@champion")
table = model.predict([{"image": pathlib.Path(sys.argv[2])}])
assert not {"clinprompt", "registry", "components"} & set(sys.modules), "the repository was imported"
print(json.dumps(table.to_dict("records")[0]))
"""


def test_a_promoted_model_is_loaded_over_http(run: Run, name: str, tmp_path: Path) -> None:
    assert promote(run) == 0
    rows = pd.read_parquet(run.folder / "evaluate" / "coop-1" / "predictions.parquet")
    rows = rows[rows["split"] == "test"]
    expected = rows[[f"p_{one}" for one in CLASSES]].to_numpy()
    champion = registry.champion(name)
    assert champion is not None
    np.testing.assert_allclose(champion.predict(run.images()), expected, atol=1e-5)
    image = run.folder / "ingest" / "images" / rows["id"].iloc[0][:2] / f"{rows['id'].iloc[0]}.png"
    assert registry.load(name).predict([{"image": image}])["label"][0] == rows["predicted"].iloc[0]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-I", "-c", CONSUMER, name, str(image)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["label"] == rows["predicted"].iloc[0]


def test_without_a_journal_nothing_is_collected_and_the_journal_is_told_as_not_checked(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(run) == 0
    run.tune(2, 0.9)
    run.decide("coop-2", champion=registry.champion(name))
    assert promote(run) == 0
    tracking.connect().delete_registered_model_alias(name, "previous")  # version 1 was the champion; nothing names it
    before = state(name)
    capsys.readouterr()
    assert main(["gc", name, "--delete", "--json"]) == 64
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["exit_code"]) == ("bad_params", 64)
    assert "has no journal" in said["message"]
    assert state(name) == before
    assert main(["verify", name, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert "journal" not in done["checks"]
    assert "no journal is named that could tell of it" in done["not_checked"]["journal"]
    monkeypatch.setenv("CLINPROMPT_JOURNAL", str(tmp_path / "journal"))
    assert main(["rollback", "nosuch", "--reason", "bad"]) == 66
    assert not (tmp_path / "journal").exists()


def test_the_candidates_are_runs_on_a_server_too_and_once(run: Run) -> None:
    assert [gate(run), gate(run), promote(run)] == [0, 0, 0]
    client = tracking.connect()
    experiment = yaml.safe_load((run.root / "params.yaml").read_text())["registry"]["experiment"]
    experiment = client.get_experiment_by_name(experiment).experiment_id
    digest = sha256_file(run.decision)
    [decision] = client.search_runs([experiment], f"tags.candidates_of = '{digest}'")
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{decision.info.run_id}'")
    assert sorted(one.data.tags["kind"] for one in nested) == ["candidate", "candidate", "registration"]


def test_run_and_version_lead_to_airflow_and_the_result_to_the_run(
    run: Run, name: str, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINPROMPT_AIRFLOW", json.dumps(AIRFLOW))
    assert promote(run) == 0
    line = result(capsys)
    assert (line["action"], line["model"], line["version"]) == ("promoted", name, 1)
    version = listing.model(name)["versions"][0]
    entity = tracking.connect().get_run(version["run"])
    assert line["run_url"] == f"{server.uri}/#/experiments/{entity.info.experiment_id}/runs/{entity.info.run_id}"
    for tags in (version["lineage"], entity.data.tags, listing.model(f"{name}-candidate")["versions"][0]["lineage"]):
        assert LINKS.items() <= tags.items()
    payload = registry.champion(name).folder.parent  # type: ignore[union-attr]
    assert not any(b"airflow" in path.read_bytes() for path in payload.rglob("*.json"))
    receipt, before = run.receipt.read_bytes(), listing.model(name)
    assert b"http" not in receipt
    monkeypatch.setenv("CLINPROMPT_AIRFLOW", json.dumps(AIRFLOW | {"run_id": "another"}))
    monkeypatch.setenv("CLINPROMPT_MLFLOW_UI", "https://mlflow.example/")
    assert promote(run) == 0
    assert result(capsys)["run_url"].startswith("https://mlflow.example/#/experiments/")
    assert (run.receipt.read_bytes(), listing.model(name)) == (receipt, before)
    monkeypatch.setenv("CLINPROMPT_AIRFLOW", "[]")
    with pytest.raises(BadParams, match="CLINPROMPT_AIRFLOW must be a JSON object"):
        registry.links.airflow_tags()


DEATHS = [
    "mlflow.MlflowClient.log_inputs",
    "mlflow.store.artifact.mlflow_artifacts_repo.MlflowArtifactsRepository.log_artifacts",
    "mlflow.MlflowClient.create_model_version",
    "mlflow.MlflowClient.set_registered_model_alias",
]


@pytest.mark.parametrize("step", DEATHS, ids=[step.rsplit(".", 1)[1] for step in DEATHS])
def test_a_server_that_dies_at_any_step_and_a_second_try_end_the_same(
    run: Run, name: str, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    import importlib

    module, cls, attribute = step.rsplit(".", 2)
    owner = getattr(importlib.import_module(module), cls)
    original = getattr(owner, attribute)

    def die(*args: Any, **kwargs: Any) -> Any:
        server.kill()
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, die)
        assert promote(run) == 69
    line = result(capsys)
    assert line["status"] == "service_down"
    assert f"{server.uri} does not answer" in line["message"]
    assert not run.receipt.exists()
    server.start()
    assert promote(run) == 0
    assert state(name) == ([1], {"champion": 1}, 1)
    experiment = tracking.connect().get_experiment_by_name(name).experiment_id
    statuses = [one.info.status for one in tracking.connect().search_runs([experiment])]
    assert statuses.count("FINISHED") == 1
    assert "RUNNING" not in statuses


def test_a_consumer_is_told_that_the_server_died_before_the_files_came(
    run: Run, name: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.artifacts

    assert promote(run) == 0
    original = mlflow.artifacts.download_artifacts

    def die(*args: Any, **kwargs: Any) -> Any:
        server.kill()
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.artifacts, "download_artifacts", die)
        with pytest.raises(ServiceDown, match="does not answer"):
            registry.load(name)
    with pytest.raises(ServiceDown):
        registry.load(name)
    server.start()
    for path in server.folder.rglob("head.safetensors"):
        path.unlink()
    with pytest.raises(InputMissing):
        registry.load(name)


def test_two_promotions_at_once_leave_one_production_version(run: Run, name: str) -> None:
    receipts = promote_twice_at_once(run)
    numbers, aliases, candidates = state(name)
    assert (len(numbers), candidates, aliases) == (1, 1, {"champion": numbers[0]})
    assert receipts[0].read_bytes() == receipts[1].read_bytes()


def test_an_experiment_that_another_promotion_made_first_is_the_one(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.connect()
    made = client.create_experiment(name)
    asked = []

    def not_at_first(experiment: str) -> Any:
        asked.append(experiment)
        return None if len(asked) == 1 else type(client).get_experiment_by_name(client, experiment)

    monkeypatch.setattr(client, "get_experiment_by_name", not_at_first)
    assert tracking.experiment_id(client, name) == made


def test_a_candidate_that_another_promotion_registered_is_promoted(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import registry.run as module

    log_release = module.log_release

    def other_first(client: Any, release: Any, packed: Any) -> Any:
        other = log_release(client, release, packed)
        tags = packed.facts | {FILES_TAG: other.files}
        versions.find_or_create(client, f"{name}-candidate", other.uri, other.run_id, tags, other.model_id)
        client.set_terminated(other.run_id, "KILLED")  # so that this promotion logs a run of its own
        for kind in ("record", "model"):
            shutil.rmtree(packed.payload.with_name(kind))
        return log_release(client, release, packed)

    monkeypatch.setattr(module, "log_release", other_first)
    assert promote(run) == 0
    assert state(name) == ([1], {"champion": 1}, 1)


def test_a_version_that_another_promotion_made_first_is_the_one(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert promote(run) == 0
    looked = []

    def late(client: Any, model: str, digest: str) -> Any:
        looked.append(model)
        return None if len(looked) == 1 else by_payload(client, model, digest)

    by_payload = versions.by_payload
    monkeypatch.setattr(versions, "by_payload", late)
    first = versions.by_alias(name, "champion")
    assert first is not None
    client = tracking.connect()
    source, run_id = f"models:/{name}-candidate/1", client.get_model_version(name, "1").run_id
    assert versions.find_or_create(client, name, source, run_id, first.tags).number == 1
    assert state(name)[:2] == ([1], {"champion": 1})


@pytest.mark.parametrize(
    "method", ["set_registered_model_tag", "set_model_version_tag", "set_registered_model_alias", "log_inputs"]
)
def test_what_another_promotion_inserts_at_the_same_moment_is_sent_again(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    send, refused = getattr(MlflowClient, method), []

    def late(*arguments: Any, **options: Any) -> None:
        send(*arguments, **options)
        if not refused:  # what the server says to the second of two inserts
            refused.append(arguments)
            raise RestException({"error_code": "BAD_REQUEST", "message": "UNIQUE constraint failed"})

    monkeypatch.setattr(MlflowClient, method, late)
    assert promote(run) == 0
    assert len(refused) == 1
    assert state(name)[:2] == ([1], {"champion": 1})


def test_a_champion_that_came_in_between_is_not_overwritten(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from registry import promote as module

    verify = module.verify

    def overtaken(candidate: Any, sample: Any) -> None:
        verify(candidate, sample)
        client = tracking.connect()
        run_id = client.get_model_version(name, "1").run_id
        client.create_model_version(name, f"models:/{name}-candidate/1", run_id=run_id)
        client.set_registered_model_alias(name, "champion", "2")

    with monkeypatch.context() as patch:
        patch.setattr(module, "verify", overtaken)
        assert promote(run) == 65
    assert "Another promotion" in result(capsys)["message"]
    assert state(name)[1] == {"champion": 2}


def test_a_rollback_works_over_http(run: Run, name: str) -> None:
    assert promote(run) == 0
    run.tune(2, 0.9)
    run.decide("coop-2", champion=registry.champion(name))
    assert promote(run) == 0
    assert registry.rollback(name, "bad")["version"] == 1
    assert registry.rollback(name, "bad")["action"] == "unchanged"
    run.decide("coop-2", champion=registry.champion(name))
    assert promote(run) == 0
    assert json.loads(run.receipt.read_text())["action"] == "quarantined"
    assert state(name) == ([2, 1], {"champion": 1}, 2)


def test_a_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ServiceDown, match="http://127.0.0.1:9 does not answer") as caught:
        registry.champion("tiny")
    assert "secret" not in str(caught.value)
