"""The finished run in miniature that the registry's tests use too."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

from fabricate import Run, copy_run, fabricate


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Run:
    """A run with an accepted decision."""
    return fabricate(tmp_path_factory.mktemp("reported"), root / "params.yaml")


@pytest.fixture
def run(reported: Run, tmp_path: Path) -> Run:
    """A copy of this test's own."""
    return copy_run(reported, tmp_path / "run")
