"""Finished runs in miniature, one of them promoted; every test works on its own copy. And an MLflow server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fabricate import Run, copy_run, fabricate, promote
from server import Server

import registry


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Run:
    """A run with an accepted decision, not promoted."""
    return fabricate(tmp_path_factory.mktemp("finished"), root / "params.yaml")


@pytest.fixture(scope="session")
def promoted(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, promoted."""
    run = copy_run(finished, tmp_path_factory.mktemp("promoted"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert promote(run) == 0
    return run


@pytest.fixture(scope="session")
def _challenged(promoted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = copy_run(promoted, tmp_path_factory.mktemp("challenged"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run.tune(2, 0.9)
        assert run.decide("coop-2", champion=registry.champion("tiny"))["verdict"] == "accepted"
    return run


@pytest.fixture
def fresh_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], Run]:
    """Copies a run to a folder of this test's own, and goes there."""

    def copy(run: Run) -> Run:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mine = copy_run(run, tmp_path / "copy")
        monkeypatch.chdir(mine.root)
        return mine

    return copy


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow-server"))
    yield server
    server.close()


@pytest.fixture
def server(_server: Server) -> Server:
    """An MLflow server that answers; it is the same one in all tests, which use names of their own."""
    _server.start()
    return _server


@pytest.fixture
def run(promoted: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """A project whose first model is in production."""
    return fresh_copy(promoted)


@pytest.fixture
def challenged(_challenged: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """A project with a second candidate that the gate chose over the champion."""
    return fresh_copy(_challenged)
