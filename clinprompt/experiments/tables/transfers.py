"""What candidates that were tuned on one dataset reach on others, as Markdown."""

from typing import Any

from clinprompt.evaluation.metric_names import OVERALL
from clinprompt.experiments.tables.markdown import Notes
from clinprompt.experiments.tables.results_table import NOT_RUN, Missing, TableCell, summary
from clinprompt.experiments.tables.training import table_lines


def render_transfers(results: list[dict[str, Any]], metric: str) -> str:
    """A row for each source and candidate, a column for each target; nothing without results."""
    if not results:
        return ""
    notes, cells = Notes(), {(result["dataset"], result["target"]): result["cells"] for result in results}
    sources, targets = (list(dict.fromkeys(result[key] for result in results)) for key in ("dataset", "target"))
    rows = []
    for source in sources:
        names = dict.fromkeys(row["candidate"] for target in targets for row in cells.get((source, target), []))
        for name in names:
            entries = [_entry(cells.get((source, target), []), name, metric) for target in targets]
            rows.append([source, name, *(notes.cell(entry) for entry in entries)])
    metric_title = OVERALL[metric].title
    text = (
        f"{metric_title} on the target's test split, percent, mean ± sample standard deviation over the seeds.\n"
        "Tuned on the source by the stage tune; on the target nothing is trained: the prompts hold its class names.\n"
        "A source in its own column is tested as usual."
    )
    lines = ["## Transfer to other datasets", "", text, ""]
    lines += table_lines(["tuned on", "candidate", *targets], rows)
    return "\n".join([*lines, "", *notes.lines()]) + "\n"


def _entry(rows: list[dict[str, Any]], candidate: str, metric: str) -> TableCell:
    candidate_rows = [row for row in rows if row["candidate"] == candidate]
    for row in candidate_rows:
        if "left_out" in row:
            return Missing(row["left_out"])
    if not candidate_rows:
        return Missing(NOT_RUN)
    values = [row["test"][metric] for row in candidate_rows]
    return summary([None if value is None else 100 * value for value in values])
