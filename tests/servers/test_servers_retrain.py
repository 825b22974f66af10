"""The DAGs on real servers: from an asset's event to a champion over HTTP, and through every failure.

The tests share one store and one registry and build on each other, in the order in which they stand.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from conftest import DATASET, Project

from infra.dev.servers import Stack

pytestmark = pytest.mark.servers

TUNE = "candidates.tune"
LONG = 900  # seconds; a busy machine takes its time


def retrain(stack: Stack, release: str, **params: Any) -> str:
    """Trigger a run of a release by hand."""
    return stack.airflow.trigger("retrain", {"dataset": DATASET, **params}, partition=f"{DATASET}@{release}")


def succeeded(stack: Stack, run: str, dag: str = "retrain", timeout: float = LONG) -> dict[str, str | None]:
    """Wait for a run to succeed; the states of its tasks."""
    state = stack.airflow.wait_for_run(dag, run, timeout)
    assert state == "success", stack.airflow.failures(dag, run)
    return stack.airflow.states(dag, run)


def versions(project: Project) -> list[str]:
    """The production model's versions."""
    return sorted(str(version["version"]) for version in project.champion()["versions"])


@pytest.fixture(scope="module")
def first(stack: Stack, project: Project) -> str:
    """The run that an asset's event starts."""
    stack.airflow.wait_for_dags("retrain", "promote", "review", "rollback", "sweep", timeout=LONG)
    assert stack.airflow.import_errors() == {}
    for dag in ("retrain", "promote", "rollback", "sweep"):
        stack.airflow.unpause(dag)
    project.publish("r0", patients=20, seed=7)
    project.publish("r1", patients=24)
    partition = f"{DATASET}@r1"
    stack.airflow.asset_event(f"dataset/{DATASET}", {"release": "r1"}, partition=partition)
    deadline = time.monotonic() + LONG
    while not (runs := stack.airflow.runs("retrain", partition=partition)):
        assert time.monotonic() < deadline, "the asset's event has started no run"
        time.sleep(1)
    [run] = [str(run["dag_run_id"]) for run in runs]
    succeeded(stack, run)
    return run


def test_an_asset_event_ends_with_a_champion_that_a_consumer_loads_over_http(
    stack: Stack, project: Project, first: str
) -> None:
    states = stack.airflow.states("retrain", first)
    assert states["promote"] == "success"
    assert states["approval"] == "skipped"
    assert states["attach"] == "success"
    image = next((project.root.parent / "r1").rglob("*.png"))
    code = (
        "import os, pathlib, sys, mlflow, registry\n"
        f"print(registry.load('{DATASET}').predict([{{'image': pathlib.Path(sys.argv[1])}}]).T)\n"
        "import base64, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model('models:/{DATASET}@champion')\n"
        "data = base64.b64encode(open(sys.argv[1], 'rb').read()).decode()\n"
        "print(model.predict(pd.DataFrame({'image': [data]})).T)\n"
    )
    keyless = {key: value for key, value in project.env.items() if not key.startswith("AWS_")}
    done = Project(project.root, keyless).run(sys.executable, "-c", code, str(image))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("p_no_tumor") == 2


def test_every_xcom_entry_is_small_and_names_digests_only(stack: Stack, first: str) -> None:
    for task in ("ingest", "validate", "describe", "cache", "gate", "promote", "explain", "report", "attach"):
        entry = stack.airflow.xcom("retrain", first, task)
        assert len(json.dumps(entry).encode()) <= 2048
        assert set(entry) == {"stage", "deps", "outs"}
    for index in (0, 1):
        assert len(json.dumps(stack.airflow.xcom("retrain", first, TUNE, map_index=index)).encode()) <= 2048


def test_the_record_in_an_empty_clone_leaves_dvc_nothing_to_do(project: Project, first: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(project.root, clone, ignore=shutil.ignore_patterns("dags", "__pycache__"))
    (clone / ".dvc").mkdir()
    (clone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    done = project.run(sys.executable, "-m", "workspace", "checkout", f"{DATASET}@r1", cwd=clone)
    assert done.returncode == 0, done.stderr
    before = yaml.safe_load((clone / "dvc.lock").read_text())
    done = project.run("dvc", "repro", cwd=clone)
    assert done.returncode == 0, done.stderr
    ran = {line.split("'")[1].partition("@")[0] for line in done.stdout.splitlines() if line.startswith("Running")}
    assert ran == {"lock", "gate", "promote"}  # they always look, and find nothing to do
    after = yaml.safe_load((clone / "dvc.lock").read_text())
    del after["stages"]["lock"]  # which is no task
    assert after == before


def test_the_champion_leads_to_its_run_in_airflow_and_back(stack: Stack, project: Project, first: str) -> None:
    [version] = project.champion()["versions"]
    assert version["lineage"]["airflow_run_id"] == first
    assert version["lineage"]["airflow_url"].startswith(stack.url)
    facts = stack.airflow.xcom("retrain", first, "promote", key="facts")
    assert facts["run_url"].startswith(project.env["MLFLOW_TRACKING_URI"])


def test_a_release_that_has_run_computes_nothing_takes_no_gpu_and_promotes_nothing(
    stack: Stack, project: Project, first: str
) -> None:
    before = project.champion()
    run = retrain(stack, "r1")
    states = succeeded(stack, run)
    for task in ("describe", "cache", f"{TUNE}[0]", f"{TUNE}[1]", "promote"):
        assert states[task] == "skipped"
    for task in ("ingest", "validate", "report"):
        assert stack.airflow.xcom("retrain", run, task, key="facts")["cached"]
    assert project.champion() == before


def test_s3_that_is_down_and_a_worker_killed_in_tune_delay_a_run_and_the_digests_are_the_same(
    stack: Stack, project: Project, first: str, tmp_path: Path
) -> None:
    long = {"methods": {"coop": {"epochs": 60}}}
    stack.stop("s3")
    run = retrain(stack, "r1", methods=["coop"], seeds=[5], overrides=long, promote="never")
    try:
        found = stack.airflow.wait_for_task("retrain", run, "plan", "up_for_retry", timeout=LONG)
    finally:
        stack.start("s3")
    assert found["try_number"] >= 1
    stack.airflow.wait_for_task("retrain", run, TUNE, map_index=0, timeout=LONG)
    wait_for_process("components.tune")
    stack.kill("worker")
    stack.start("worker")
    states = succeeded(stack, run)
    assert states["promote"] == "skipped"
    assert "does not answer" in stack.airflow.log("retrain", run, "plan")
    [task] = [task for task in stack.airflow.tasks("retrain", run) if task["task_id"] == TUNE]
    assert task["try_number"] == 2
    recorded = stack.airflow.xcom("retrain", run, TUNE, map_index=0)["outs"]

    clone = tmp_path / "clone"
    shutil.copytree(project.root, clone, ignore=shutil.ignore_patterns("dags", "__pycache__"))
    (clone / ".dvc").mkdir()
    (clone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    assert project.run(sys.executable, "-m", "workspace", "checkout", DATASET, cwd=clone).returncode == 0
    done = project.run("dvc", "repro", "--single-item", "--force", f"tune@{DATASET}-coop-5", cwd=clone)
    assert done.returncode == 0, done.stderr
    lock = yaml.safe_load((clone / "dvc.lock").read_text())["stages"][f"tune@{DATASET}-coop-5"]
    assert {out["path"]: out["md5"] for out in lock["outs"]} == {path: facts[0] for path, facts in recorded.items()}


def test_an_approval_and_mlflow_down_at_the_promotion(stack: Stack, project: Project, first: str) -> None:
    run = retrain(stack, "r1", methods=["coop"], seeds=[2], overrides={"registry": {"approval": "required"}})
    stack.airflow.wait_for_task("retrain", run, "approval", "awaiting_input", "deferred", timeout=LONG)
    [question] = stack.airflow.waiting_for_people("retrain", run)
    assert "coop-2" in question["subject"]
    time.sleep(15)  # Airflow 3.3.2 asks again when it is answered within the first seconds
    stack.stop("mlflow")
    try:
        stack.airflow.respond("retrain", run, "approval", "Approve")
        stack.airflow.wait_for_task("retrain", run, "promote", "up_for_retry", timeout=LONG)
    finally:
        stack.start("mlflow")
    assert succeeded(stack, run)["promote"] == "success"
    assert versions(project) == ["1", "2"]


def test_a_rejected_and_an_unanswered_approval_promote_nothing(stack: Stack, project: Project, first: str) -> None:
    asked = {"registry": {"approval": "required"}}
    rejected = retrain(stack, "r1", methods=["coop"], seeds=[3], overrides=asked)
    stack.airflow.wait_for_task("retrain", rejected, "approval", "awaiting_input", "deferred", timeout=LONG)
    unanswered = retrain(stack, "r1", methods=["coop"], seeds=[3], overrides=asked)  # takes what that one has trained
    time.sleep(15)  # see above
    stack.airflow.respond("retrain", rejected, "approval", "Reject")
    for run in (rejected, unanswered):
        states = succeeded(stack, run)
        assert states["promote"] == "skipped"
        assert states["record"] == "success"
    assert versions(project) == ["1", "2"]


def test_what_was_not_approved_can_be_promoted_later(stack: Stack, project: Project, first: str) -> None:
    run = stack.airflow.trigger("promote", {"dataset": DATASET})
    states = succeeded(stack, run, "promote")
    assert states["promote"] == states["attach"] == "success"
    assert versions(project) == ["1", "2", "3"]
    assert stack.airflow.xcom("promote", run, "attach", key="facts")["run_id"]


def test_a_rollback_brings_the_version_before_back_and_keeps_it_there(
    stack: Stack, project: Project, first: str
) -> None:
    before = project.champion()["aliases"]
    run = stack.airflow.trigger("rollback", {"dataset": DATASET, "reason": "worse at site B"})
    succeeded(stack, run, "rollback")
    after = project.champion()["aliases"]
    assert str(after["champion"]) == str(before["previous"])
    run = stack.airflow.trigger("promote", {"dataset": DATASET})
    succeeded(stack, run, "promote")
    assert project.champion()["aliases"] == after  # it is quarantined


def test_a_corrupt_object_is_named_and_nothing_is_trained_on_it(stack: Stack, project: Project, first: str) -> None:
    env = stack.env
    keys = {"aws_access_key_id": env["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"]}
    s3 = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"], region_name=env["AWS_DEFAULT_REGION"], **keys)
    bucket, _, prefix = env["CLINPROMPT_STORE"].removeprefix("s3://").partition("/")

    def key(md5: str) -> str:
        return f"{prefix}/dvc/files/md5/{md5[:2]}/{md5[2:]}"

    features = stack.airflow.xcom("retrain", first, "cache")["outs"][f"runs/{DATASET}/features"][0]
    tree = json.loads(s3.get_object(Bucket=bucket, Key=key(features))["Body"].read())
    [shard] = [key(file["md5"]) for file in tree if file["relpath"].endswith(".safetensors")]
    sound = s3.get_object(Bucket=bucket, Key=shard)["Body"].read()
    broken = bytearray(sound)
    broken[len(broken) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=shard, Body=bytes(broken))
    try:
        run = retrain(stack, "r1", methods=["coop"], seeds=[9])
        assert stack.airflow.wait_for_run("retrain", run, LONG) == "failed"
    finally:
        s3.put_object(Bucket=bucket, Key=shard, Body=sound)
    [task] = [task for task in stack.airflow.tasks("retrain", run) if task["task_id"] == TUNE]
    assert (task["state"], task["try_number"]) == ("failed", 1)
    log = stack.airflow.log("retrain", run, TUNE, map_index=0)
    assert "corrupt" in log
    assert "Running stage" not in log
    alert = stack.alerts()[-1]
    assert (alert["task_id"], alert["exit_code"]) == (TUNE, 67)
    assert f"runs/{DATASET}/features" in alert["message"]
    assert alert["next"]


def test_two_runs_of_one_release_and_a_scheduler_that_restarts_make_one_version(
    stack: Stack, project: Project, first: str
) -> None:
    project.publish("r2", patients=24, seed=3)
    runs = [retrain(stack, "r2", methods=["coop"]) for _ in range(2)]
    stack.airflow.wait_for_task("retrain", runs[0], "validate", "running", "success", timeout=LONG)
    stack.restart("scheduler")
    before = versions(project)
    for run in runs:
        succeeded(stack, run)
    assert len(versions(project)) == len(before) + 1


def test_a_sweep_backfills_the_releases_without_a_run_and_promotes_no_old_one(
    stack: Stack, project: Project, first: str
) -> None:
    before = project.champion()["aliases"]
    succeeded(stack, stack.airflow.trigger("sweep", {"releases": "missing"}), "sweep")
    deadline = time.monotonic() + LONG
    while not (runs := stack.airflow.runs("retrain", partition=f"{DATASET}@r0")):
        assert time.monotonic() < deadline, "the sweep has started no run of r0"
        time.sleep(1)
    assert succeeded(stack, str(runs[0]["dag_run_id"]))["promote"] == "skipped"
    assert project.champion()["aliases"] == before


def test_a_broken_component_yaml_is_an_import_error_that_names_the_key(stack: Stack, project: Project) -> None:
    path = project.root / "components" / "tune" / "component.yaml"
    sound = path.read_text()
    path.write_text(sound.replace("memory:", "memroy:"))
    try:
        deadline = time.monotonic() + LONG
        while not (errors := stack.airflow.import_errors()):
            assert time.monotonic() < deadline, "the broken file was not noticed"
            time.sleep(1)
    finally:
        path.write_text(sound)
    assert any("components/tune/component.yaml" in text and "memroy" in text for text in errors.values())


def wait_for_process(module: str, timeout: float = LONG) -> None:
    """Wait until a component's process runs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
        if any(line.startswith("python -m " + module) for line in listed.splitlines()):
            return
        time.sleep(0.1)
    raise TimeoutError(f"no process of {module} was seen")
