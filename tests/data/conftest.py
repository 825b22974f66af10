"""The folder on which the tests run ingest, and the one on which they run `data.new`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk
from ingest_workspace import Workspace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace(tmp_path)
    monkeypatch.setenv("CLINPROMPT_DATA", str(workspace.root))
    return workspace


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.fixture
def asked(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """The command stops with a question that holds these parts, and writes no card."""

    def check(*parts: str, options: tuple[str, ...] = (), code: int = 64) -> None:
        capsys.readouterr()
        assert desk.new(*options) == code
        question = capsys.readouterr().err
        for part in parts:
            assert part in question
        assert not Path("datasets").exists()

    return check
