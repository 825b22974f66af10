"""Real promotions and rollbacks that are killed at random moments, and after each of their writes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.minutes]

MOMENTS = int(os.environ.get("CLINPROMPT_TEST_MOMENTS", "25"))  # of each of the two
SCRIPT = Path(__file__).with_name("crash.py")
Found = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Found:
    """What crash.py has seen, by verb and kind of moment; it fails where an end was not the right one."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CLINPROMPT_"))}
    env |= {"PYTHONPATH": str(root), "TMPDIR": str(tmp_path_factory.mktemp("crash"))}
    env["CLINPROMPT_PATIENT_KEY"] = os.environ["CLINPROMPT_PATIENT_KEY"]
    command = [
        sys.executable,
        str(SCRIPT),
        "promote",
        "rollback",
        "--moments",
        str(MOMENTS),
        "--each-write",
        "promote",
        "rollback",
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"verb"')]
    return {(line["verb"], line["moments"]): line for line in lines}


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_a_kill_at_a_random_moment_and_any_verb_end_the_same(found: Found, verb: str) -> None:
    killed = found[verb, "random"]
    assert killed["kills"] == MOMENTS
    assert len(killed["left"]) > 1, "all were killed in the same state"


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_a_kill_after_each_write_and_any_verb_end_the_same(found: Found, verb: str) -> None:
    killed = found[verb, "each write"]
    assert killed["kills"] > 10
    assert killed["left"].keys() >= {"intended", "committed", "done"}
