"""The fixtures of the tests: a small project with a published release, and what has run in it before."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_project import PARTS, Project, Ran, draw

from workspace.releases import publish
from workspace.store import open_store


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project in a folder, with the variables that name its parts set."""
    monkeypatch.setenv("CLINPROMPT_CODE", str(folder / "project"))
    monkeypatch.setenv("CLINPROMPT_STORE", str(folder / "store"))
    monkeypatch.setenv("CLINPROMPT_SCRATCH", str(folder / "scratch"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv("CLINPROMPT_DATA", raising=False)
    return Project(folder / "project", open_store())


@pytest.fixture(scope="session")
def published(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project and its store, where the release `r1` of the dataset `drawn` is published."""
    folder = tmp_path_factory.mktemp("published")
    target = folder / "project"
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (root / part).is_dir():
            shutil.copytree(root / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / part, target / part)
    card = yaml.safe_load((target / "datasets/brain-phantom.yaml").read_text())
    card |= {"name": "drawn", "reader": {"kind": "table", "file": "manifest.csv"}}
    (target / "datasets/drawn.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = opened(folder, monkeypatch)
        made.edit("params.yaml", lambda params: params["validation"].update(min_images_per_class=1))
        publish(made.store, "drawn", draw(folder / "r1", patients=10), "r1")
    return folder


@pytest.fixture
def project(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the dataset `drawn`, whose release `r1` is published."""
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return opened(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def ran_once(published: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """The project as it was after `ingest`, and, in another folder, after `validate`."""
    folders = tmp_path_factory.mktemp("ran")
    kept: dict[str, Ran] = {}
    source, entries = published, []
    for stage in ("ingest", "validate"):
        shutil.copytree(source, folders / stage)
        source = folders / stage
        with pytest.MonkeyPatch.context() as monkeypatch:
            project = opened(source, monkeypatch)
            settled = kept["ingest"].plan if kept else project.plan()
            entry, cached = project.run(settled, stage, *entries)
        entries.append(entry)
        kept[stage] = Ran(source, project, settled, entry, cached)
    return kept


@pytest.fixture
def after(ran_once: dict[str, Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Ran]:
    """Gives a copy of the project as it was after a stage."""

    def copied(stage: str) -> Ran:
        ran = ran_once[stage]
        shutil.copytree(ran.folder, tmp_path / stage)
        return replace(ran, folder=tmp_path / stage, project=opened(tmp_path / stage, monkeypatch))

    return copied
