"""What candidates that were tuned on one dataset reach on others, as Markdown."""

from collections.abc import Callable
from typing import Any

from clinprompt.evaluation.metric_names import OVERALL
from clinprompt.experiments.tables.markdown import Notes
from clinprompt.experiments.tables.results_table import NOT_RUN, Missing, TableCell, summary
from clinprompt.experiments.tables.training import table_lines


def render_transfers(results: list[dict[str, Any]], metric: str) -> str:
    """A row for each source and candidate, a column for each target; nothing without results."""
    if not results:
        return ""
    metric_title = OVERALL[metric].title
    text = (
        f"{metric_title} on the target's test split, percent, mean ± sample standard deviation over the seeds.\n"
        "Tuned on the source by the stage tune; on the target nothing is trained: the prompts hold its class names.\n"
        "A source in its own column is tested as usual."
    )
    notes = Notes()
    lines = [
        "## Transfer to other datasets",
        "",
        text,
        "",
        *_table(results, lambda test: _percent(test[metric]), notes),
    ]
    scored = [
        result | {"cells": [row for row in result["cells"] if "score" in row.get("test", {})]} for result in results
    ]
    if any(result["cells"] for result in scored):
        lines += ["", "Mean absolute error of the estimated score, in its points:", ""]
        lines += _table(scored, lambda test: test["score"]["mae"], notes)
    return "\n".join([*lines, "", *notes.lines()]) + "\n"


def _table(results: list[dict[str, Any]], value: Callable[[dict[str, Any]], float | None], notes: Notes) -> list[str]:
    cells = {(result["dataset"], result["target"]): result["cells"] for result in results}
    sources, targets = (list(dict.fromkeys(result[key] for result in results)) for key in ("dataset", "target"))
    rows = []
    for source in sources:
        names = dict.fromkeys(row["candidate"] for target in targets for row in cells.get((source, target), []))
        for name in names:
            entries = [_entry(cells.get((source, target), []), name, value) for target in targets]
            rows.append([source, name, *(notes.cell(entry) for entry in entries)])
    return table_lines(["tuned on", "candidate", *targets], rows)


def _entry(rows: list[dict[str, Any]], candidate: str, value: Callable[[dict[str, Any]], float | None]) -> TableCell:
    candidate_rows = [row for row in rows if row["candidate"] == candidate]
    for row in candidate_rows:
        if "left_out" in row:
            return Missing(row["left_out"])
    if not candidate_rows:
        return Missing(NOT_RUN)
    return summary([value(row["test"]) for row in candidate_rows])


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
