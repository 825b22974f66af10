"""A run with two evaluated candidates."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_run import ToyRun, make_run

import registry


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> ToyRun:
    """coop-1 is good, zero_shot-1 fair; nobody writes to it."""
    run = make_run(tmp_path_factory.mktemp("evaluated"))
    run.candidate("coop-1", 1.0)
    run.candidate("zero_shot-1", 0.5, noise=1)
    return run


@pytest.fixture
def run(evaluated: ToyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyRun:
    """A copy of this test's own."""
    shutil.copytree(evaluated.root, tmp_path / "run")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)  # where the registry lies, and beside it the count of the decisions
    return ToyRun(tmp_path / "run")


@pytest.fixture
def crown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Sets what the registry says the champion is; nobody at first."""

    def put(champion: Any) -> None:
        monkeypatch.setattr(registry, "champion", lambda name, alias="champion": champion)

    put(None)
    return put
