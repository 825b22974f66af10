"""Many real processes at once at one registry, some of them killed; and a kill after every write of a promotion."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.minutes]

PROCESSES = int(os.environ.get("CLINPROMPT_TEST_PROCESSES", "32"))
SCRIPT = Path(__file__).with_name("race.py")


def race(folder: Path, root: Path, *options: str, **more: str) -> dict[str, Any]:
    """Run the race in a process of its own, which forks."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CLINPROMPT_"))}
    env |= {"PYTHONPATH": str(root), **more}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_many_processes_at_once_leave_one_champion_and_one_line(tmp_path: Path, root: Path) -> None:
    found = race(tmp_path, root, "--processes", str(PROCESSES))
    told = found["outcomes"]
    assert sum(told.values()) == PROCESSES
    assert not [words for words in told if ":" in words], "a process was told of an error"
    assert found["by_state"]["promote done"] >= 2
    assert found["by_state"].get("rollback done", 0) == told.get("rolled back", 0)


def test_processes_that_are_killed_at_any_moment_leave_one_champion_and_one_line(tmp_path: Path, root: Path) -> None:
    found = race(tmp_path, root, "--processes", "12", "--kill", "6", "--seed", "1")
    assert sum(found["outcomes"].values()) >= 12 - found["killed"]


def test_a_kill_after_each_write_and_a_second_try_end_the_same(tmp_path: Path, root: Path) -> None:
    found = race(tmp_path, root, "--each-write")
    assert found["kills"] > 10
    assert found["ends"] == [{"champion": 3, "previous": 2}]
