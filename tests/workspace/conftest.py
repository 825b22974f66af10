"""The fixture of the tests: a small project with a published release."""

import shutil
from pathlib import Path

import pytest
import yaml
from small_project import PARTS, Project, draw

from workspace.releases import publish
from workspace.store import open_store


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the dataset `drawn`, whose release `r1` is published."""
    target = tmp_path / "project"
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (root / part).is_dir():
            shutil.copytree(root / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / part, target / part)
    monkeypatch.setenv("CLINPROMPT_CODE", str(target))
    monkeypatch.setenv("CLINPROMPT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("CLINPROMPT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv("CLINPROMPT_DATA", raising=False)
    made = Project(target, open_store())
    made.edit("params.yaml", lambda params: params["validation"].update(min_images_per_class=1))
    card = yaml.safe_load((target / "datasets/brain-phantom.yaml").read_text())
    card |= {"name": "drawn", "reader": {"kind": "table", "file": "manifest.csv"}}
    (target / "datasets/drawn.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    publish(made.store, "drawn", draw(tmp_path / "r1", patients=10), "r1")
    return made
