"""What every DAG must have, and what loading it must not cost."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

_HEAVY = ("torch", "mlflow", "dvc", "pandas", "numpy", "docker", "kubernetes", "great_expectations", "transformers")
_OURS = ("components", "registry", "workspace")
_IMPORT = """
import json, sys
import airflow.sdk
before = set(sys.modules)
sys.path.append(sys.argv[1])
for name in ("retrain", "promote", "review", "rollback", "sweep"):
    __import__(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.fixture(scope="module")
def full_bag(project: Path) -> Any:
    """The DAGs as in production: with their deadlines."""
    from airflow.dag_processing.dagbag import BundleDagBag

    kept = os.environ.pop("CLINPROMPT_DEADLINE_SECONDS")
    try:
        return BundleDagBag(dag_folder=project / "dags", bundle_path=project / "dags", bundle_name="dags-folder")
    finally:
        os.environ["CLINPROMPT_DEADLINE_SECONDS"] = kept


def test_the_dags_load(full_bag: Any) -> None:
    assert full_bag.import_errors == {}
    assert set(full_bag.dags) == {"retrain", "promote", "review", "rollback", "sweep"}


def test_every_dag_says_whose_it_is_and_how_long_it_may_take(full_bag: Any) -> None:
    for dag in full_bag.dags.values():
        assert dag.owner == "clinprompt"
        assert "clinprompt" in dag.tags
        assert dag.doc_md
        assert dag.catchup is False
        assert dag.dagrun_timeout > timedelta(hours=72)
        assert [alert.interval for alert in dag.deadline] == [timedelta(hours=12)]
        assert dag.deadline[0].callback.path == "clinprompt_dags.callbacks.deadline_missed"
    for name in ("promote", "rollback", "sweep"):
        assert full_bag.dags[name].max_active_runs == 1


def test_every_task_has_timeout_retries_callback_and_words(full_bag: Any) -> None:
    for dag in full_bag.dags.values():
        for task in dag.tasks:
            assert task.execution_timeout, task.task_id
            assert task.on_failure_callback, task.task_id
            assert task.owner == "clinprompt"
            if task.task_id != "branch":
                assert task.doc_md, task.task_id
            assert task.retries == (0 if task.task_id == "rollback" else 2), task.task_id


def test_pools_are_those_of_the_components(full_bag: Any, project: Path) -> None:
    from clinprompt_dags.factory import GROUPS
    from clinprompt_dags.graph import load_graph

    dag = full_bag.dags["retrain"]
    for stage in load_graph(project).stages:
        task_id = f"{GROUPS[stage.candidates]}.{stage.name}" if stage.mapped else stage.name
        expected = {"default": "default_pool"}.get(stage.need.pool, stage.need.pool)
        assert dag.get_task(task_id).pool == expected
    pools = {task.task_id: task.pool for task in dag.tasks}
    assert pools["candidates.tune"] == "gpu"
    assert pools["candidates.probe_tune"] == "default_pool"
    assert pools["promote"] == full_bag.dags["rollback"].get_task("rollback").pool == "promotion"


def test_the_tasks_follow_each_other_as_the_stages_do(full_bag: Any, project: Path) -> None:
    from clinprompt_dags.factory import GROUPS
    from clinprompt_dags.graph import load_graph

    dag = full_bag.dags["retrain"]
    graph = load_graph(project)
    names = {
        stage.name: f"{GROUPS[stage.candidates]}.{stage.name}" if stage.mapped else stage.name for stage in graph.stages
    }
    for stage in graph.stages:
        above = dag.get_task(names[stage.name]).get_flat_relative_ids(upstream=True)
        assert {names[one] for one in graph.before(stage.name)} <= above
        assert "plan" in above
    assert dag.get_task("promote").get_direct_relative_ids(upstream=True) == {"branch", "approval"}
    assert dag.get_task("record").get_direct_relative_ids(upstream=True) == {"report", "attach"}
    assert not {"explain", "report"} & dag.get_task("promote").get_flat_relative_ids(upstream=True)
    assert "describe" not in dag.get_task("candidates.evaluate").get_flat_relative_ids(upstream=True)


def test_record_waits_for_every_stage_also_when_promotion_is_skipped(full_bag: Any, project: Path) -> None:
    from clinprompt_dags.factory import Factory
    from clinprompt_dags.graph import load_graph

    dag = full_bag.dags["retrain"]
    graph, factory = load_graph(project), Factory()
    skipped = {factory.task_id(stage) for stage in graph.stages if graph.is_optional(stage.name)}
    waited_for, todo = set[str](), {"record"}
    while todo:
        waited_for |= todo
        todo = {above for task in todo for above in dag.get_task(task).upstream_task_ids} - skipped - waited_for
    assert {factory.task_id(stage) for stage in graph.stages} - skipped <= waited_for


def test_a_release_of_any_dataset_starts_a_run(full_bag: Any, project: Path) -> None:
    from airflow.sdk import AssetAny, PartitionedAssetTimetable

    schedule = full_bag.dags["retrain"].schedule
    assert isinstance(schedule, PartitionedAssetTimetable)
    assert isinstance(schedule.asset_condition, AssetAny)
    names = {asset.name for asset in schedule.asset_condition.objects}
    assert names == {f"dataset/{card.stem}" for card in (project / "datasets").glob("*.yaml")}
    sent = {asset.name for task in full_bag.dags["sweep"].tasks for asset in task.outlets}
    assert sent == names


def test_the_params_are_checked(full_bag: Any) -> None:
    from airflow.sdk.definitions.param import ParamsDict
    from airflow.sdk.exceptions import ParamValidationError

    params = full_bag.dags["retrain"].params
    params.validate()
    for wrong in ({"dataset": "other"}, {"methods": ["magic"]}, {"methods": []}, {"seeds": ["1"]}, {"promote": "yes"}):
        changed = ParamsDict({**{key: params.get_param(key) for key in params}})
        with pytest.raises(ParamValidationError):
            changed.update(wrong)
            changed.validate()


def test_an_approval_never_approves_by_itself(full_bag: Any) -> None:
    for name in ("retrain", "promote", "rollback"):
        task = full_bag.dags[name].get_task("approval")
        assert task.defaults == ["Reject"]
        assert task.response_timeout == timedelta(hours=72)


def test_an_approval_that_is_required_cannot_be_switched_off(other_project: Path) -> None:
    params = other_project / "params.yaml"
    params.write_text(params.read_text("utf-8").replace("approval: none", "approval: required"), encoding="utf-8")
    script = "import json, sys; sys.path.append(sys.argv[1]); import promote; from json import dumps; "
    script += "print(dumps(promote.dag.params.get_param('approval').schema['enum']))"
    found = subprocess.run(
        [sys.executable, "-c", script, str(other_project / "dags")], check=True, capture_output=True, text=True
    )
    assert json.loads(found.stdout.splitlines()[-1]) == ["required"]


def test_no_value_of_the_moment_makes_a_new_dag_version(full_bag: Any, project: Path) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.dag_version_inflation_checker import check_dag_file_stability

    for file in sorted((project / "dags").rglob("*.py")):
        assert check_dag_file_stability(str(file)).format_warnings() is None, file
    again = BundleDagBag(dag_folder=project / "dags", bundle_path=project / "dags", bundle_name="dags-folder")
    for name, dag in again.dags.items():
        one, other = (DagSerialization.to_dict(bag.dags[name])["dag"] for bag in (full_bag, again))
        one.pop("deadline"), other.pop("deadline")
        assert json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str), dag


def test_the_dag_files_import_nothing_heavy(project: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(project / "dags")], check=True, capture_output=True, text=True
    )
    modules = json.loads(found.stdout.splitlines()[-1])
    packages = {name.partition(".")[0] for name in modules}
    assert "retrain" in packages
    assert not packages & {*_HEAVY, *_OURS}
    ours = {name for name in modules if name.startswith("clinprompt.")}
    assert {name for name in ours if not f"{name}.".startswith("clinprompt.contract.")} == set()
    assert "clinprompt.contract.exit_codes" in ours


def test_without_a_digest_a_container_runner_says_what_to_do(other_project: Path) -> None:
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.documents import BadDocument
    from clinprompt_dags.runners.containers import image_reference

    lock = other_project / "infra" / "images.lock"
    settings = load_settings(other_project)
    assert image_reference(settings, "data").endswith(f"@sha256:{'0' * 64}")
    lock.write_text("data: {reference: clinprompt-data, digest: null}\n", encoding="utf-8")
    with pytest.raises(BadDocument, match=r"data.digest: is null.*make images"):
        image_reference(settings, "data")
