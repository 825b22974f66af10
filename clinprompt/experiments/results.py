"""A result file: what was run, and the numbers of each cell. The same inputs give the same bytes on a CPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinprompt.errors import InputCorrupt
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.experiments.journal import Row
from clinprompt.experiments.protocols import LeftOut
from clinprompt.experiments.scores import mean
from clinprompt.files import read_json

FORMAT = 1
FOLDER = "experiments"  # of each dataset's run; below it <protocol>/<method>.json
TESTS = ("test", "base", "novel", "harmonic_mean")


@dataclass(frozen=True)
class Result:
    """A result file's content.

    Attributes:
        facts: what was run: dataset, protocol, method, backbone, config, and digests of what it read.
        cells: a row for each cell: its key, and the metrics of each test; or `left_out`, the reason.
        left_out: why the method can't be run in this protocol; then there are no cells.
    """

    facts: dict[str, Any]
    cells: list[Row]
    left_out: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What the file holds. `dvc metrics` and `dvc exp show` read no lists: they show `mean` and nothing else."""
        means = {group: _means(rows) for group, rows in grouped(self.cells).items()}
        return {
            "format": FORMAT,
            "facts": [{**self.facts, "left_out": self.left_out}],
            "cells": self.cells,
            "mean": means,
        }


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows that differ in their seed or fold only: by shots, fraction or candidate, else all under "all"."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = next((row[key] for key in ("shots", "fraction", "candidate") if key in row), "all")
        groups.setdefault(str(name), []).append(row)
    return groups


def left_out_row(cell: LeftOut) -> Row:
    """The row of a cell that can't be."""
    return {**cell.key, "left_out": cell.reason}


def read_result(path: Path) -> dict[str, Any]:
    """The facts of a result file, and its `cells`.

    Raises:
        InputMissing, InputCorrupt: it is not there, or is no result of this version.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or not {"cells", "facts"} <= set(content):
        raise InputCorrupt(f"{path} is no result of an experiment of this version; delete it and run again.")
    return {**content["facts"][0], "cells": content["cells"]}


def read_results(folders: Sequence[Path], protocol: str) -> Iterator[dict[str, Any]]:
    """All results of a protocol, by dataset and method; where two folders have the same, the first one's."""
    yield from map(read_result, _result_files(folders, f"*/{FOLDER}/{protocol}/*.json"))


def read_transfers(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """All results of transfers, by source and target; where two folders have the same, the first one's."""
    return [read_result(path) for path in _result_files(folders, "*/transfer/*.json")]


def _result_files(folders: Sequence[Path], pattern: str) -> list[Path]:
    files = {path.relative_to(folder): path for folder in reversed(folders) for path in folder.glob(pattern)}
    return [files[place] for place in sorted(files)]


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    done = [row for row in rows if "left_out" not in row]
    return {
        test: {name: mean([row[test][name] for row in done]) for name in SELECTABLE}
        for test in TESTS
        if done and test in done[0]
    }
