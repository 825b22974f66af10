"""The folder on which the tests run ingest."""

from pathlib import Path

import pytest
from ingest_workspace import Workspace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace(tmp_path)
    monkeypatch.setenv("CLINPROMPT_DATA", str(workspace.root))
    return workspace
