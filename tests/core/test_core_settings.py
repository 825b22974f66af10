"""What of a card each stage depends on: a change touches the stages that read it, and no other."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinprompt.params import load_params
from components.lock.settings import settings_lock

ROOT = Path(__file__).parents[2]
NAME = "brain-phantom"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the lock is made from."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("datasets", "clinprompt", "components", "registry"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    return folder


def lock_of(project: Path, **changes: Any) -> dict[str, str]:
    """The digests of the dataset's card and layout, with keys of the card changed."""
    file = project / "datasets" / f"{NAME}.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "datasets" / f"{NAME}.yaml").read_text()) | changes))
    locked = yaml.safe_load(settings_lock(load_params(ROOT / "params.yaml"), project))
    return dict(locked["datasets"][NAME])


def changed_class(**changes: Any) -> list[dict[str, Any]]:
    classes: list[dict[str, Any]] = yaml.safe_load((ROOT / "datasets" / f"{NAME}.yaml").read_text())["classes"]
    return [classes[0] | changes, *classes[1:]]


@pytest.mark.parametrize(
    ("changes", "touched"),
    [
        ({"title": "x", "licence": "x", "source": "x", "how_to_get": "x"}, set()),
        ({"classes": changed_class(phrase="another phrase")}, {"phrases"}),
        ({"classes": changed_class(aliases=["another"])}, {"files"}),
        ({"classes": changed_class(name="another name")}, {"card"}),
        ({"slices": ["site"]}, {"slices"}),
        ({"knowledge": {"terms": {"modality": ["echogenic"]}}}, {"terms"}),
        ({"on_leak": "drop_from_train"}, {"checks"}),
        ({"methods": {"coop": {"n_ctx": 7, "context_init": None}}}, {"knobs"}),
        ({"path": "elsewhere"}, {"files"}),
        ({"intensity": "full"}, {"card"}),
        ({"modality": "CT"}, {"card"}),
    ],
)
def test_a_change_of_the_card_touches_its_part_alone(project: Path, changes: dict[str, Any], touched: set[str]) -> None:
    before, after = lock_of(project), lock_of(project, **changes)
    assert {key for key in before if before[key] != after[key]} == touched


@pytest.mark.parametrize(
    ("part", "readers"),
    [
        ("phrases", {"describe", "promote"}),
        ("terms", {"describe"}),
        ("files", {"ingest", "validate"}),
        ("checks", {"validate"}),
        ("slices", {"evaluate", "evaluate_taught"}),
        ("knobs", {"tune", "tune_taught", "explain", "experiment", "transfer"}),
    ],
)
def test_the_graph_gives_each_part_to_its_readers(part: str, readers: set[str]) -> None:
    found = set()
    for file in ("dvc.yaml", "experiments/dvc.yaml"):
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            files = [entry for entry in stage.get("params", []) if isinstance(entry, dict)]
            keys = [key for entry in files for listed in entry.values() for key in listed]
            if any(key.startswith("datasets.") and key.endswith(f".{part}") for key in keys):
                found.add(name)
    assert found == readers
