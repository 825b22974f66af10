"""The promotion protocol on a real MLflow server with its journal in a real S3: many processes, some of them killed."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinprompt.evaluation.budget import Use, share
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.params import BudgetParams
from infra.dev.servers import Stack
from registry import held_out
from registry.protocol.s3 import S3Store

pytestmark = pytest.mark.servers

PROCESSES = int(os.environ.get("CLINPROMPT_TEST_PROCESSES", "32"))


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


def test_decisions_on_a_test_split_are_counted_without_a_gap_by_all_at_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stack.env.items():
        monkeypatch.setenv(name, value)
    budget = BudgetParams(decisions=6, spending="fallback")
    use = Use(
        test_set="7" * 64, images=60, candidate="coop-1", predictions="", model="9" * 64, settings="5" * 64,
        alpha=0.025, spending="fallback", at_most=6,
    )  # fmt: skip
    ledger = held_out.ledger("counted", None, budget)
    assert ledger is not None
    assert isinstance(ledger.store, S3Store)
    uses = [replace(use, predictions=f"{number % 5:064d}") for number in range(10)]

    def claim(one: Use) -> int:
        mine = held_out.Ledger(S3Store(where), "counted")  # a client of its own
        found = mine.claim(one, None)
        return found.number or 0

    where = f"{stack.env['CLINPROMPT_STORE'].rstrip('/')}/registry-journal/{held_out.FOLDER}"
    with ThreadPoolExecutor(len(uses)) as pool:
        numbers = list(pool.map(claim, uses))
    assert sorted(numbers) == sorted([*range(1, 6)] * 2)
    assert numbers[:5] == numbers[5:]
    last = ledger.claim(uses[numbers.index(5)], None)
    ledger.close(DecisionRecord.model_construct(held_out=last, verdict="accepted"))
    renewed = ledger.claim(replace(use, predictions="a" * 64), None)
    assert (renewed.number, renewed.alpha) == (6, pytest.approx(share(use.alpha, 6, inherited=last.alpha)))
    assert ledger.claim(replace(use, predictions="b" * 64), None).spent
    [split] = ledger.told()
    assert [one["number"] for one in split["decisions"]] == [*range(1, 7)]
    assert [one["verdict"] for one in split["decisions"]] == [None] * 4 + ["accepted", None]
    alphas = [share(use.alpha, number) for number in range(1, 6)]
    assert [one["alpha"] for one in split["decisions"][:5]] == pytest.approx(alphas)
