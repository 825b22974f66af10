"""Who may do what on an MLflow server with logins: training makes candidates, the promoter production, others read."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server import Server

from clinprompt.errors import BadParams
from registry import tracking, versions
from registry.protocol.models import MlflowModels
from registry.signature import SIGNATURE

pytest.importorskip("flask_wtf", reason="MLflow's server asks for logins with flask-wtf only")
pytestmark = [pytest.mark.slow, pytest.mark.minutes]

PASSWORD = "a-password-of-sixteen"  # noqa: S105
Login = Callable[[str], None]


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """Takes a user's part on a server that knows training, promoter and reader."""
    import mlflow.server

    server = Server(tmp_path, admin=PASSWORD)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)

    def become(user: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)

    become("admin")
    users = mlflow.server.get_app_client("basic-auth", tracking_uri=server.uri)
    for user in ("training", "promoter", "reader"):
        users.create_user(user, PASSWORD)
    yield become
    server.kill()


def make(name: str, payload: str, user: str) -> None:
    """Register a version of a run of the user's own."""
    client = tracking.connect()
    run = client.create_run(tracking.experiment_id(client, f"{user} runs"))
    tags = {"payload_digest": payload, "file_digests": "{}"}
    versions.find_or_create(client, name, f"{run.info.artifact_uri}/model", run.info.run_id, tags)


def test_training_can_not_touch_production_and_readers_change_nothing(login: Login) -> None:
    production, candidates = MlflowModels("m"), MlflowModels("m-candidate")
    login("training")
    make("m-candidate", "p1", "training")
    login("promoter")
    make("m", "p1", "promoter")
    production.set_alias("champion", 1)
    for user in ("training", "reader"):
        login(user)
        champion = production.by_alias("champion")
        assert champion is not None
        assert champion.number == 1
        for change in (
            lambda: production.set_alias("champion", 1),
            lambda: production.delete_alias("champion"),
            lambda: production.set_tag(1, SIGNATURE, "AAAA"),
            lambda user=user: make("m", "p2", user),
        ):
            with pytest.raises(BadParams, match="refused the request"):
                change()
    with pytest.raises(BadParams, match="refused the request"):
        candidates.set_tag(1, "seed", "2")
    login("promoter")
    champion = production.by_alias("champion")
    assert champion is not None
    assert champion.tags["payload_digest"] == "p1"
