"""Two processes that share every batch end where one process does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_training import RUNS
from safetensors.torch import load_file

from clinprompt.training.distributed import ALONE, Ranks, joined

SCRIPT = Path(__file__).with_name("distributed_training.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[int, Path]:
    """What the script writes when run by one process and by two."""
    found = {}
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for processes, launcher in ((1, []), (2, TORCHRUN)):
        found[processes] = tmp_path_factory.mktemp(f"processes{processes}")
        command = [sys.executable, *launcher, str(SCRIPT), str(found[processes])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_end_where_one_does(folders: dict[int, Path], run: str) -> None:
    records: dict[int, Any] = {n: json.loads((folder / f"{run}.json").read_text()) for n, folder in folders.items()}
    assert {n: record["processes"] for n, record in records.items()} == {1: 1, 2: 2}
    alone, together = (load_file(folders[n] / f"{run}.safetensors") for n in (1, 2))
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, atol=1e-5, rtol=1e-5)
    for row, expected in zip(records[2]["curves"], records[1]["curves"], strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert all((folder / f"{run}.checkpoint").exists() for folder in folders.values())


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 4, 9])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_shares_of_all_processes_are_the_batch(size: int, n: int, parts: int) -> None:
    rows, seen, total = np.arange(10, 10 + n), [], 0.0
    for rank in range(size):
        some, shares = Ranks(rank, size).share(rows, parts)
        assert 1 <= len(some) == len(shares) <= parts
        seen += [row for part, share in zip(some, shares, strict=True) if share for row in part]
        assert all(share in (0.0, len(part) / n) for part, share in zip(some, shares, strict=True))
        total += sum(shares)
    assert sorted(seen) == rows.tolist()
    assert total == pytest.approx(1)
    spans = [Ranks(rank, size).span(n) for rank in range(size)]
    assert [row for span in spans for row in span] == list(range(n))


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as ranks:
        assert ranks == ALONE
        assert ranks.writes
        tensor = torch.ones(2)
        ranks.add([tensor])
        assert tensor.tolist() == [1, 1]
