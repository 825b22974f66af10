"""The graph and the settings that the DAGs are made from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import make_project

# Prints the import errors that each [DAG file or folder, bundle] has in a process of its own: a fork of one that has
# imported Airflow, which takes most of the time, and nothing of a project.
_LOAD = """
import json, sys
from multiprocessing import get_context
from airflow.dag_processing.dagbag import BundleDagBag

def errors(asked):
    bag = BundleDagBag(dag_folder=asked[0], bundle_path=asked[1], bundle_name="dags-folder")
    return list(bag.import_errors.values())

with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps(pool.map(errors, json.loads(sys.argv[1]), chunksize=1)))
"""
DAGS = ("promote", "retrain", "review", "rollback", "sweep")
BROKEN: list[tuple[Any, list[str]]] = [
    (lambda c: c["resources"].update(memory="4GB"), ["resources.memory", "4GB"]),
    (lambda c: c.update(tiemout=3), ["tiemout"]),
    (lambda c: c.pop("image"), ["image"]),
    (lambda c: c.update(pool="cpu"), ["pool", "cpu"]),
]


def edit(path: Path, change: Any) -> None:
    """Change a YAML file in place."""
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")


def test_the_graph_is_that_of_dvc_yaml(project: Path) -> None:
    from clinprompt_dags.graph import load_graph

    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    graph = load_graph(project)
    del stages["lock"]  # the plan holds what it writes
    assert {stage.name for stage in graph.stages} == set(stages)
    assert {stage.name for stage in graph.stages if stage.mapped} == {
        name for name, stage in stages.items() if set(stage["matrix"]) != {"dataset"}
    }
    for name, stage in stages.items():
        below = {dep.split("/")[2] for dep in stage["deps"] if dep.startswith("runs/")}
        folders = {"features": "cache", "metrics": "evaluate", "report.html": "report"}
        above = {folders.get(folder, folder) for folder in below}
        if not graph[name].mapped:
            above |= {f"{one}_taught" for one in above & {"tune", "evaluate"}}
        elif graph[name].candidates == "taught":
            above = {"tune_taught" if one == "tune" else one for one in above}
        assert set(graph[name].upstream) == above, name


@pytest.fixture(scope="module")
def import_errors(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The import errors of each DAG file alone, by its name, and of the DAGs of each broken project, by its number."""
    asked = {name: (str(project / "dags" / f"{name}.py"), str(project / "dags")) for name in DAGS}
    for number, (change, _) in enumerate(BROKEN):
        broken = make_project(tmp_path_factory.mktemp("broken") / "project")
        edit(broken / "components" / "tune" / "component.yaml", change)
        asked[str(number)] = (str(broken / "dags"), str(broken / "dags"))
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-P", "-c", _LOAD, json.dumps(list(asked.values()))]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, cwd=elsewhere, env=env)
    return dict(zip(asked, json.loads(loaded.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_file_alone_needs_nothing_on_the_path_but_its_folder(
    import_errors: dict[str, list[str]], name: str
) -> None:
    assert import_errors[name] == []


def test_only_taught_candidates_wait_for_describe(project: Path) -> None:
    from clinprompt_dags.graph import load_graph

    graph = load_graph(project)
    assert "describe" not in graph.before("evaluate")
    assert "describe" in graph["tune_taught"].upstream
    assert {"explain", "report"} & graph.before("promote") == set()
    assert {"promote", "report"} <= set(graph["attach"].upstream)


def test_the_order_runs_nothing_before_what_it_reads(project: Path) -> None:
    from clinprompt_dags.graph import load_graph

    graph = load_graph(project)
    names = [stage.name for stage in graph.stages]
    for stage in graph.stages:
        assert all(names.index(one) < names.index(stage.name) for one in stage.upstream)
        assert graph.before(stage.name) == set().union(*({one} | graph.before(one) for one in graph.edges(stage.name)))


def test_needs_come_from_component_yaml(project: Path) -> None:
    from clinprompt_dags.graph import load_graph

    for stage in load_graph(project).stages:
        name = stage.name.removesuffix("_taught")
        component = yaml.safe_load((project / "components" / name / "component.yaml").read_text("utf-8"))
        assert stage.need.image == component["image"]
        assert stage.need.memory == component["resources"]["memory"]
        assert stage.need.timeout_minutes == component["timeout_minutes"]
        assert stage.need.pool == component.get("pool", "default")


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_a_broken_component_yaml_is_an_import_error_that_names_file_and_key(
    import_errors: dict[str, list[str]], number: int
) -> None:
    errors = import_errors[str(number)]
    assert len(errors) == len(DAGS)
    assert all(word in text for text in errors for word in ["components/tune/component.yaml", *BROKEN[number][1]])


def test_a_missing_component_yaml_is_named(other_project: Path) -> None:
    from clinprompt_dags.documents import BadDocument
    from clinprompt_dags.graph import load_graph

    (other_project / "components" / "gate" / "component.yaml").unlink()
    with pytest.raises(BadDocument, match="components/gate/component.yaml"):
        load_graph(other_project)


def test_text_that_is_no_yaml_is_named(other_project: Path) -> None:
    from clinprompt_dags.documents import BadDocument
    from clinprompt_dags.graph import load_graph

    (other_project / "components" / "gate" / "component.yaml").write_text("name: [gate", encoding="utf-8")
    with pytest.raises(BadDocument, match="components/gate/component.yaml: is not valid YAML"):
        load_graph(other_project)


def test_a_cycle_is_named(other_project: Path) -> None:
    from clinprompt_dags.documents import BadDocument
    from clinprompt_dags.graph import load_graph

    edit(
        other_project / "dvc.yaml",
        lambda value: value["stages"]["ingest"]["deps"].append("runs/${item.dataset}/report.html"),
    )
    with pytest.raises(BadDocument, match="ingest.*is a cycle"):
        load_graph(other_project)


def test_a_wrong_setting_is_named(other_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.documents import BadDocument

    edit(other_project / "params.yaml", lambda value: value["airflow"].update(deadline_hours="soon"))
    with pytest.raises(BadDocument, match=r"params.yaml: airflow.deadline_hours: 'soon'"):
        load_settings(other_project)
    monkeypatch.setenv("CLINPROMPT_RUNNER", "podman")
    edit(other_project / "params.yaml", lambda value: value["airflow"].update(deadline_hours=1))
    with pytest.raises(BadDocument, match="CLINPROMPT_RUNNER"):
        load_settings(other_project)
