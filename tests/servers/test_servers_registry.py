"""The promotion protocol on a real MLflow server with its journal in a real S3: many processes, some of them killed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.dev.servers import Stack

pytestmark = pytest.mark.servers

PROCESSES = int(os.environ.get("CLINPROMPT_TEST_PROCESSES", "8"))


def race(stack: Stack, root: Path, name: str, *options: str) -> dict[str, Any]:
    """Run tests/registry/race.py against the stack; it fails where journal and aliases are not in one line."""
    env = os.environ | stack.env | {"PYTHONPATH": str(root), "RACE_NAME": name}
    command = [sys.executable, "tests/registry/race.py", "--journal", "s3://clinprompt/journal", *options]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_many_processes_at_once_leave_one_champion_and_one_line(stack: Stack, root: Path) -> None:
    found = race(stack, root, "race", "--processes", str(PROCESSES))
    told = found["outcomes"]
    assert sum(told.values()) == PROCESSES
    assert not [words for words in told if ":" in words], "a process was told of an error"
    assert found["by_state"].get("rollback done", 0) == told.get("rolled back", 0)


def test_processes_that_are_killed_leave_one_champion_and_one_line(stack: Stack, root: Path) -> None:
    found = race(stack, root, "killed", "--processes", "4", "--kill", "2")
    assert sum(found["outcomes"].values()) >= 4 - found["killed"]


def test_a_promoter_that_is_killed_halfway_is_recovered_by_the_next_verb(stack: Stack, root: Path) -> None:
    writes = ("1", "3", "5")  # the intent, the commit, and the first of the two aliases
    found = race(stack, root, "halfway", "--each-write", "--writes", *writes, "--lease", "3")
    assert found["kills"] == 3
    assert found["left"] == {"3 intended": 1, "3 committed": 2}
    assert found["ends"] == [{"champion": 3, "previous": 2}]
