"""The SQLite file of a local registry: whole or absent, whatever happens while it is made."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from clinprompt.errors import BadParams, InputCorrupt
from registry import listing, tracking
from registry.__main__ import main
from registry.versions import by_alias

MAKE = "from registry import tracking; print(tracking.connect().search_registered_models())"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def write(*statements: str) -> None:
    """Leave a database that some process has begun."""
    with closing(sqlite3.connect("mlflow.db")) as database, database:
        for statement in statements:
            database.execute(statement)


HALF_MADE = {
    "empty": (),
    "the first tables": ("CREATE TABLE experiments (experiment_id INTEGER)", "CREATE TABLE issues (id INTEGER)"),
    "in an upgrade": (
        "CREATE TABLE runs (run_uuid TEXT)",
        "CREATE TABLE issues (id INTEGER)",
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('451aebb31d03')",
    ),
}


@pytest.mark.parametrize("state", HALF_MADE)
def test_a_store_that_is_half_made_and_holds_nothing_is_made_anew(state: str) -> None:
    Path("mlflow.db").touch()
    write(*HALF_MADE[state])
    tracking.connect().create_registered_model("tiny")
    assert [model["name"] for model in listing.models()] == ["tiny"]


def test_it_is_its_owner_s_alone_and_leaves_nothing_beside_it() -> None:
    tracking.connect().create_registered_model("tiny")
    assert stat.S_IMODE(Path("mlflow.db").stat().st_mode) == 0o600
    assert sorted(file.name for file in Path().iterdir()) == ["mlartifacts", "mlflow.db"]
    assert stat.S_IMODE(Path("mlartifacts").stat().st_mode) == 0o700


def test_a_failure_while_it_is_made_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        write("CREATE TABLE experiments (experiment_id INTEGER)")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.__init__", full)
        with pytest.raises(OSError, match="No space"):
            tracking.connect()
    tracking.connect().create_registered_model("tiny")
    assert not list(Path().glob(".mlflow.db.*"))


def test_what_is_no_database_is_left_alone() -> None:
    Path("mlflow.db").write_text("my notes, which are longer than a header\n" * 100)
    with pytest.raises(BadParams, match="is no SQLite database"):
        tracking.connect()
    assert Path("mlflow.db").read_text().startswith("my notes")


@pytest.mark.minutes
def test_several_first_uses_at_once_of_a_half_made_store_share_one(root: Path) -> None:
    write(*HALF_MADE["in an upgrade"])
    env = os.environ | {"PYTHONPATH": str(root)}
    make = "import sys; from registry import tracking; tracking.connect().create_registered_model(sys.argv[1])"
    names = [f"model-{number}" for number in range(4)]
    processes = [subprocess.Popen([sys.executable, "-c", make, name], env=env) for name in names]
    assert [process.wait() for process in processes] == [0] * len(names)
    assert sorted(model["name"] for model in listing.models()) == names


@pytest.mark.minutes
def test_killed_at_any_moment_the_next_process_finds_a_store_or_makes_one(root: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(root)}
    moments = Random(0)  # noqa: S311 # no secret
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", MAKE], env=env, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list(Path().glob(".mlflow.db.*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if Path("mlflow.db").exists():
            assert listing.models() == []
            tracking.local_store().unlink()  # type: ignore[union-attr]
    done = subprocess.run([sys.executable, "-c", MAKE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in Path().iterdir() if file.name.startswith(".mlflow")) == []


def test_a_damaged_store_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    tracking.connect().create_registered_model("tiny")
    os.truncate("mlflow.db", 20_000)
    assert main(["list"]) == 67
    with pytest.raises(InputCorrupt, match=r"The registry mlflow\.db is damaged"):
        by_alias("tiny", "champion")
    assert "Put its back-up in its place" in capsys.readouterr().err


def test_a_folder_in_the_store_s_place_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("mlflow.db", "mlartifacts"):
        Path(folder).mkdir()
    assert main(["list"]) == 66
    assert "must be a file" in capsys.readouterr().err


def test_a_store_of_another_release_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    tracking.connect().create_registered_model("tiny")
    write("UPDATE alembic_version SET version_num = '0123456789ab'")
    shutil.copy("mlflow.db", "other.db")  # MLflow remembers what it has looked at
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
        assert main(["list"]) == 64
    assert "mlflow db upgrade" in capsys.readouterr().err


def test_a_version_whose_run_was_removed_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    client = tracking.connect()
    client.create_registered_model("tiny")
    run = client.create_run("0")
    client.create_model_version("tiny", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    write("DELETE FROM tags", "DELETE FROM runs")
    assert main(["list"]) == 0
    assert "tiny" in capsys.readouterr().out
