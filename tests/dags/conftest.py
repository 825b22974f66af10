"""A copy of what the DAGs read, and an Airflow of its own on SQLite, for tests that run in Airflow's environment.

The components' interpreter is replaced by a small script that answers the contract; `calls.jsonl` holds what it was
asked, and `scenario.json` tells it how to answer.
"""

import importlib.util
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
AIRFLOW = importlib.util.find_spec("airflow") is not None
CONTRACT = "clinprompt/contract"
FAKE = Path(__file__).with_name("fake_components.py")


def make_project(folder: Path) -> Path:
    """Copy the files that the DAGs are made from, with the fake interpreter in place of the components'."""
    for name in ("dags", "datasets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / CONTRACT, folder / CONTRACT, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("clinprompt/__init__.py", "dvc.yaml", "components/component.schema.json", "infra/images.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for file in (ROOT / "components").glob("*/component.yaml"):
        copy = folder / "components" / file.parent.name / file.name
        copy.parent.mkdir(parents=True)
        shutil.copy(file, copy)
    for name in ("data", "vision", "registry"):
        set_digest(folder, name, f"sha256:{'0' * 64}")
    python = folder / "fake" / "python"
    python.parent.mkdir()
    python.write_text(f"#!{sys.executable} -ES\n{FAKE.read_text(encoding='utf-8')}", encoding="utf-8")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["airflow"] |= {"python": "fake/python", "runner": "local"}
    params["registry"]["approval"] = "none"
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return folder


def set_digest(folder: Path, image: str, digest: str | None) -> None:
    """Change an image's digest in the project's images.lock."""
    path = folder / "infra" / "images.lock"
    lock = yaml.safe_load(path.read_text(encoding="utf-8"))
    lock[image]["digest"] = digest
    path.write_text(yaml.safe_dump(lock), encoding="utf-8")


if AIRFLOW:
    # Airflow reads its configuration when it is first imported, which is before any fixture.
    _HOME = Path(tempfile.mkdtemp(prefix="clinprompt-dags-"))
    PROJECT = make_project(_HOME / "project")
    os.environ |= {
        "AIRFLOW_HOME": str(_HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",  # a test that changes the DAGs waits for nothing
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(_HOME / "logs"),
        "CLINPROMPT_DEADLINE_SECONDS": "0",  # DAG.test() fails with a deadline: apache/airflow#73428
        "CLINPROMPT_RETRY_SECONDS": "1",
        "CLINPROMPT_STORE": str(_HOME / "store"),
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": "kubernetes://",
    }
    for _name in ("CLINPROMPT_RUNNER", "CLINPROMPT_GPU", "CLINPROMPT_NETWORK", "CLINPROMPT_WEIGHTS_VOLUME"):
        os.environ.pop(_name, None)
    sys.path.append(str(PROJECT / "dags"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests in the components' environment."""
    if not AIRFLOW:
        skip = pytest.mark.skip(reason="Airflow is not installed here; `make test-dags` runs these tests there")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def airflow_home() -> Iterator[Path]:
    """Airflow's folder, removed in the end."""
    if not AIRFLOW:
        pytest.skip("Airflow is not installed here")
    yield _HOME
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def project() -> Path:
    """The copy that the DAGs are loaded from."""
    return PROJECT


@pytest.fixture
def other_project(tmp_path: Path) -> Path:
    """One more copy, to break."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def bag(project: Path) -> Any:
    """The DAGs, loaded as Airflow's DAG processor does it."""
    return load_bag(project)


def load_bag(project: Path) -> Any:
    """Load a project's DAG files."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=project / "dags", bundle_path=project / "dags", bundle_name="dags-folder")


@pytest.fixture(scope="session")
def database(airflow_home: Path) -> None:
    """Airflow's tables, on SQLite."""
    from airflow.utils.db import initdb

    initdb()


class Components:
    """The fake components' environment."""

    def __init__(self, project: Path) -> None:
        self.folder = project
        self.answer({})

    def answer(self, scenario: dict[str, Any]) -> None:
        """How to answer: a list per `command:stage`, one item per call; the last one stays."""
        (self.folder / "scenario.json").write_text(json.dumps(scenario), encoding="utf-8")
        (self.folder / "calls.jsonl").write_text("", encoding="utf-8")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What was asked since."""
        lines = (self.folder / "calls.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def asked(self, what: str) -> list[dict[str, Any]]:
        """The calls of one `command:stage`."""
        return [call for call in self.calls if call["what"] == what]


@pytest.fixture
def components(project: Path) -> Components:
    """A fake that answers everything well."""
    return Components(project)
