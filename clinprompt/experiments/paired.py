"""Whether one method is better than another on the same cells and the same test images: a paired bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinprompt.data.dataset import class_indices
from clinprompt.data.manifest import patients
from clinprompt.errors import BadParams
from clinprompt.evaluation.metrics import Floats, Ints, confusion
from clinprompt.experiments.journal import Row
from clinprompt.experiments.resamples import SEED, draw
from clinprompt.experiments.results import TESTS

RESAMPLES = 5000
_NOT_A_KEY = {
    "images", "support", "trainable_parameters", "training", "candidate", "method", "model_digest", *TESTS, "left_out"
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Mean balanced accuracies over the cells, their difference with its interval, and a two-sided p, in points.

    Attributes:
        alike: both answer every image alike in every cell, as where an ablation takes out what was not there.
        adjusted: the p after Holm's correction for all comparisons that are made together.
    """

    first: str
    second: str
    cells: int
    means: tuple[float, float]
    difference: float
    low: float
    high: float
    p: float
    alike: bool = False
    adjusted: float = 1.0

    def verdict(self, alpha: float = 0.05) -> str:
        """What the test says, in words."""
        if self.alike:
            return "the same answers to every image: is anything different?"
        if self.adjusted >= alpha:
            return "no difference shown"
        return f"{self.first} is {'better' if self.difference > 0 else 'worse'}"


def compare(
    results: Mapping[str, Sequence[Row]],
    test: pd.DataFrame,
    classes: Sequence[str],
    first: str,
    others: Sequence[str],
    part: str = "test",
) -> list[Comparison]:
    """Compare one method with others.

    Each resample draws cells and, beside them, patients, both with replacement; a difference is always that of the two
    methods in the same cells on the same patients. p is twice the smaller share of resamples on one side of 0 (at least
    one resample's worth).

    Args:
        results: the cells of each method, with `predicted` in their test.
        test: the manifest's test rows of these classes.
        part: which test of a cell: "test", or "base" or "novel".

    Raises:
        BadParams: a method has no result, or its cells keep no predictions, or none that both have.
    """
    rows = test.sort_values("path", kind="stable")
    labels, owners = class_indices(rows["label"], classes), patients(rows).to_numpy(dtype=str)
    compared = []
    for other in others:
        mine, theirs = (_cells(results, name, part) for name in (first, other))
        keys = [key for key in mine if key in theirs]
        if not keys:
            raise BadParams(f"{first} and {other} have no cell in common; run both with the same protocol and seeds.")
        pair = [np.array([cells[key] for key in keys]) for cells in (mine, theirs)]
        compared.append(_compared(first, other, pair, labels, owners, len(classes)))
    return _holm(compared)


def _cells(results: Mapping[str, Sequence[Row]], method: str, part: str) -> dict[str, list[int]]:
    """What each cell predicts of the test images, by its key."""
    if method not in results:
        raise BadParams(f"There is no result of {method}; there are {', '.join(results) or 'none'}.")
    cells: dict[str, list[int]] = {}
    for row in results[method]:
        if "left_out" in row:
            continue
        if "predicted" not in row[part]:
            raise BadParams(f"The results of {method} keep no predictions; run them again.")
        cells[str({key: value for key, value in row.items() if key not in _NOT_A_KEY})] = row[part]["predicted"]
    return cells


def _compared(
    first: str, second: str, pair: Sequence[Ints], labels: Ints, owners: NDArray[np.str_], classes: int
) -> Comparison:
    cells = len(pair[0])
    whole = [_balanced(predicted, labels, np.ones((1, len(labels))), classes)[:, 0] for predicted in pair]
    picked = np.random.default_rng([SEED, 1]).integers(cells, size=(RESAMPLES, cells))
    of_cells = np.stack([(picked == cell).sum(1) for cell in range(cells)]) / cells  # [cells, R]
    weights = np.concatenate(list(draw(owners, RESAMPLES)))
    drawn = [_balanced(predicted, labels, weights, classes) for predicted in pair]
    spread = ((drawn[0] - drawn[1]) * of_cells).sum(0)
    spread = spread[np.isfinite(spread)]
    low, high = np.quantile(spread, [0.025, 0.975])
    sides = (int((spread <= 0).sum()), int((spread >= 0).sum()))
    p = min(1.0, 2 * max(1, min(sides)) / len(spread))
    means = (float(whole[0].mean()), float(whole[1].mean()))
    return Comparison(
        first, second, cells, means, means[0] - means[1], float(low), float(high), p, bool((pair[0] == pair[1]).all())
    )


def _balanced(predicted: Ints, labels: Ints, weights: Floats, classes: int) -> Floats:
    """Balanced accuracy [cells, R]; NaN where a resample has no image of a class."""
    values = []
    with np.errstate(invalid="ignore"):
        for of_cell in predicted:
            table = confusion(labels, of_cell, weights, classes)
            values.append((np.diagonal(table, axis1=1, axis2=2) / table.sum(2)).mean(1))
    return np.stack(values)


def _holm(compared: Sequence[Comparison]) -> list[Comparison]:
    """Holm's step-down adjustment (1979), in the order given."""
    order, highest = sorted(range(len(compared)), key=lambda k: compared[k].p), 0.0
    adjusted = list(compared)
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(compared) - rank) * compared[k].p))
        adjusted[k] = replace(compared[k], adjusted=highest)
    return adjusted


def render(compared: Sequence[Comparison], facts: Mapping[str, str]) -> str:
    """A Markdown table, in percent and percentage points.

    Args:
        facts: what is compared on, in words by their kind, as "dataset" and "protocol".
    """
    lines = [
        f"{', '.join(facts.values())}; balanced accuracy on the test split in percent, mean over the cells. The "
        "difference with its 95 % interval from a bootstrap over cells and patients; p by Holm for all rows.",
        "",
        "| | cells | first | second | difference | p | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in compared:
        numbers = [f"{100 * value:.1f}" for value in one.means]
        difference = f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
        p = "< 0.001" if one.adjusted < 0.001 else f"{one.adjusted:.3f}"
        name = f"`{one.first}` against `{one.second}`"
        lines.append(f"| {name} | {one.cells} | {' | '.join(numbers)} | {difference} | {p} | {one.verdict()} |")
    return "\n".join(lines) + "\n"
