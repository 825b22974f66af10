"""What all tests share: where the optional real data and golden cases lie."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Threads of BLAS beside pytest's own processes only slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real datasets of the cards: CLINPROMPT_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("CLINPROMPT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CLINPROMPT_DATA to the folder that the cards' paths start from")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder with the golden cases: CLINPROMPT_GOLDEN, or ../shared/golden beside the repository."""
    folder = Path(os.environ.get("CLINPROMPT_GOLDEN", ROOT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden cases at {folder}; set CLINPROMPT_GOLDEN to their folder")
    return folder
