"""Who may do what on an MLflow server with logins: training makes candidates, the promoter production, others read."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from server import Server

from clinprompt.errors import BadParams
from registry import tracking, versions
from registry.protocol.models import MlflowModels
from registry.signature import SIGNATURE

pytest.importorskip("flask_wtf", reason="MLflow's server asks for logins with flask-wtf only")
pytestmark = [pytest.mark.slow, pytest.mark.minutes]

PASSWORD = "a-password-of-sixteen"  # noqa: S105
EXPERIMENT = "candidates"
TRAINING, PROMOTER, READER = "clinprompt", "clinprompt-promoter", "clinprompt-reader"
Login = Callable[[str], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Server]:
    """A server with the users and rights that the compose stack gives them, each time that it starts."""
    spec = importlib.util.spec_from_file_location("compose_init", root / "infra/compose/init.py")
    assert spec is not None
    assert spec.loader is not None
    init: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(init)
    assert (init.TRAINING, init.PROMOTER, init.READER) == (TRAINING, PROMOTER, READER)
    running = Server(tmp_path_factory.mktemp("logins"), admin=PASSWORD)
    running.start()
    stack = init.Mlflow(running.uri, PASSWORD)
    for _ in range(2):
        for user in (TRAINING, PROMOTER, READER):
            stack.create_user(user, PASSWORD)
        stack.share_experiment(EXPERIMENT, TRAINING, PROMOTER)
    yield running
    running.close()


@pytest.fixture
def login(server: Server, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Takes a user's part."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)

    def become(user: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)

    return become


def make(name: str, payload: str, experiment: str = EXPERIMENT) -> None:
    """Register a version of a run of the user's own."""
    client = tracking.connect()
    run = client.create_run(tracking.experiment_id(client, experiment))
    tags = {"payload_digest": payload, "file_digests": "{}"}
    versions.find_or_create(client, name, f"{run.info.artifact_uri}/model", run.info.run_id, tags)


def test_training_can_not_touch_production_and_readers_change_nothing(login: Login) -> None:
    production, candidates = MlflowModels("m"), MlflowModels("m-candidate")
    login(TRAINING)
    make("m-candidate", "p1")
    login(PROMOTER)
    make("m", "p1")  # its run is in the experiment of the candidates' runs, as a promotion's is
    production.set_alias("champion", 1)
    for user in (TRAINING, READER):
        login(user)
        champion = production.by_alias("champion")
        assert champion is not None
        assert champion.number == 1
        for change in (
            lambda: production.set_alias("champion", 1),
            lambda: production.delete_alias("champion"),
            lambda: production.set_tag(1, SIGNATURE, "AAAA"),
            lambda user=user: make("m", "p2", f"{user} runs"),
        ):
            with pytest.raises(BadParams, match="refused the request"):
                change()
    with pytest.raises(BadParams, match="refused the request"):
        candidates.set_tag(1, "seed", "2")
    with pytest.raises(MlflowException, match="Permission denied"):
        make("m-other", "p3")
    login(PROMOTER)
    champion = production.by_alias("champion")
    assert champion is not None
    assert champion.tags["payload_digest"] == "p1"
