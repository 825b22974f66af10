"""How the methods of a table were trained: the preset and the budget, and each method's steps and learning rates."""

from collections.abc import Iterable, Sequence
from typing import Any

from clinprompt.experiments.tables.results_table import ResultsTable


def table_lines(titles: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def settings_sentence(results: Sequence[dict[str, Any]]) -> str:
    """Under which settings the results came about; empty where each method had its own."""
    told = list(dict.fromkeys(_settings(result.get("knobs") or {}) for result in results))
    if len(told) > 1:
        different = "; ".join(one or "their own" for one in told)
        return f"**The rows were not trained under the same settings: {different}.**"
    return f"Every method has {told[0]}." if told and told[0] else ""


def _settings(knobs: dict[str, Any]) -> str:
    budget, preset = knobs.get("budget"), knobs.get("preset")
    parts = [f"the published settings of the preset {preset}, where that has the method"] if preset else []
    if budget:
        images = "its own number of" if budget["batch_size"] is None else budget["batch_size"]
        rates = len(budget["rates"])
        search = f"{rates} learning rates tried on validation" if rates > 1 else "no search"
        parts.append(f"the same budget: {budget['steps']} steps of {images} images, {search}")
    return ", and ".join(parts)


def training_lines(board: ResultsTable) -> list[str]:
    """A table of steps, batch sizes, learning rates and tries by method; nothing where no result tells of them."""
    rows = []
    for method in board.methods:
        results = [result for result in board.shown() if result["method"] == method]
        told = [row["training"] for result in results for row in result["cells"] if "training" in row]
        if told:
            rows.append([method, *_training([one for one in told if one])])
    if not rows:
        return []
    titles = ["method", "steps", "batch size", "learning rate", "tried"]
    return ["### How they were trained", "", *table_lines(titles, rows), ""]


def _training(told: Sequence[dict[str, Any]]) -> list[str]:
    if not told:
        return ["–"] * 4
    columns = [[one[key] for one in told] for key in ("steps", "batch_size", "learning_rate")]
    return [*map(_range, columns), _range([max(1, len(one.get("tried", []))) for one in told])]


def _range(values: Iterable[float]) -> str:
    """The smallest and the largest."""
    low, *rest = sorted(set(values))
    return f"{low:g} to {rest[-1]:g}" if rest else f"{low:g}"
