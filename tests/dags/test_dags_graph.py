"""The graph and the settings that the DAGs are made from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

_LOAD = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(dag_folder=sys.argv[1], bundle_path=sys.argv[1], bundle_name="dags-folder")
print(json.dumps(list(bag.import_errors.values())))
"""


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


@pytest.mark.parametrize("name", ["promote", "retrain", "review", "rollback", "sweep"])
def test_a_dag_file_alone_needs_nothing_on_the_path_but_its_folder(project: Path, tmp_path: Path, name: str) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = _LOAD.replace("dag_folder=sys.argv[1]", f"dag_folder=sys.argv[1] + '/{name}.py'")
    command = [sys.executable, "-P", "-c", script, str(project / "dags")]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert json.loads(loaded.stdout.splitlines()[-1]) == []


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["resources"].update(memory="4GB"), ["resources.memory", "4GB"]),
        (lambda c: c.update(tiemout=3), ["tiemout"]),
        (lambda c: c.pop("image"), ["image"]),
        (lambda c: c.update(pool="cpu"), ["pool", "cpu"]),
    ],
)
def test_a_broken_component_yaml_is_an_import_error_that_names_file_and_key(
    other_project: Path, change: Any, words: list[str]
) -> None:
    edit(other_project / "components" / "tune" / "component.yaml", change)
    # In a process of its own: this one has the package of the whole project loaded.
    found = subprocess.run(
        [sys.executable, "-c", _LOAD, str(other_project / "dags")], check=True, capture_output=True, text=True
    )
    errors = json.loads(found.stdout.splitlines()[-1])
    assert len(errors) == len(list((other_project / "dags").glob("*.py")))
    assert all(word in text for text in errors for word in ["components/tune/component.yaml", *words])


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
