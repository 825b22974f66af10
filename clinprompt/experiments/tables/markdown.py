"""A protocol's results as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from clinprompt.experiments.scores import METRICS
from clinprompt.experiments.tables.published import Published
from clinprompt.experiments.tables.results_table import ResultsTable, TableCell, Value

TITLES = {
    "full": "Full training split",
    "few_shot": "Few-shot: images per class",
    "base_to_novel": "Base-to-novel",
    "label_efficiency": "Label efficiency: share of the training split",
}
_TESTS = {"base": "base", "novel": "novel", "harmonic_mean": "harmonic mean"}


@dataclass
class Notes:
    """The reasons for what is missing, told once below the table."""

    reasons: list[str] = field(default_factory=list)

    def cell(self, entry: TableCell) -> str:
        """A number, or a dash with the reason's letter."""
        if isinstance(entry, Value):
            return f"{entry.mean:.2f}" + ("" if entry.deviation is None else f" ± {entry.deviation:.2f}")
        if entry.reason not in self.reasons:
            self.reasons.append(entry.reason)
        return f"– ({_letter(self.reasons.index(entry.reason))})"

    def lines(self) -> list[str]:
        """The list below the table."""
        return [f"- ({_letter(n)}) missing: {reason}" for n, reason in enumerate(self.reasons)]


def render(board: ResultsTable, metric: str, sources: Sequence[Published]) -> str:
    """The tables of a protocol: each dataset's, and the average over them with the published ones below."""
    head = [f"## {TITLES[board.protocol]}", "", _about(board, metric), ""]
    if board.protocol == "full":
        return "\n".join([*head, *_full(board, sources)]) + "\n"
    parts = [_dataset(board, dataset, metric) for dataset in board.datasets]
    average = _average(board, metric, [one for one in sources if one.metric == metric])
    return "\n".join([*head, *(line for part in [*parts, average] for line in part)]) + "\n"


def _about(board: ResultsTable, metric: str) -> str:
    shown = board.shown()
    if not shown:
        return "There are no results yet: `dvc repro experiments/dvc.yaml` makes them."
    backbones = sorted({one["backbone"]["name"] for one in shown})
    unit = "" if board.protocol == "full" else f"{metric.replace('_', ' ').capitalize()} on the test split, "
    text = f"{unit}percent, mean ± sample standard deviation over the seeds {', '.join(map(str, board.seeds))}; "
    text = text[0].upper() + text[1:] + f"backbone {', '.join(backbones)}."
    if len(backbones) > 1 or len({one["backbone"]["digest"] for one in shown}) > 1:
        text += " **Not all rows have the same backbone.**"
    return text


def _columns(board: ResultsTable) -> list[tuple[str, str, str]]:
    """(title, group, test) of each column."""
    if board.protocol == "base_to_novel":
        return [(title, "all", test) for test, title in _TESTS.items()]
    return [(group, group, "test") for group in board.groups]


def _dataset(board: ResultsTable, dataset: str, metric: str) -> list[str]:
    notes, columns = Notes(), _columns(board)
    rows = [
        [method, *(notes.cell(board.value(dataset, method, group, test, metric)) for _, group, test in columns)]
        for method in board.methods
    ]
    return [f"### {dataset}", "", *table_lines(["method", *(title for title, *_ in columns)], rows), *_end(notes)]


def _average(board: ResultsTable, metric: str, sources: Sequence[Published]) -> list[str]:
    notes, columns, rows = Notes(), _columns(board), []
    both = board.protocol == "base_to_novel"
    for method in board.methods:
        row = [notes.cell(board.average(method, group, test, metric)) for _, group, test in columns]
        rows.append([method, *row, *([notes.cell(board.harmonic_of_means(method, metric))] if both else [])])
    titles = [title for title, *_ in columns]
    if both:
        titles = ["base", "novel", "mean of harmonic means", "harmonic mean of the means"]
    several = len(board.datasets) > 1
    found = [*table_lines(["method", *titles], rows), *_end(notes)] if several else []
    title = f"### Mean over {len(board.datasets)} datasets: {', '.join(board.datasets)}"
    return [*([title, ""] if several else []), *found, *_published(board, columns, sources)]


def _published(board: ResultsTable, columns: list[tuple[str, str, str]], sources: Sequence[Published]) -> list[str]:
    lines = []
    for one in sources:
        rows = one.averages(board.protocol)
        if not rows:
            continue
        keys = list(_TESTS) if board.protocol == "base_to_novel" else list(next(iter(rows.values())))
        titles = [_TESTS.get(key, key) for key in keys]
        cells = [[f"*{method}*", *(f"*{row[key]:.2f}*" for key in keys)] for method, row in rows.items()]
        other = sorted(set(one.datasets) ^ set(board.datasets))
        warning = " **Other datasets than ours above.**" if other else ""
        lines += [f"### Published: {one.name}", "", f"Not ours: {one.source}.{warning}", ""]
        lines += [*table_lines(["method", *titles], cells), ""]
    return lines


def _full(board: ResultsTable, sources: Sequence[Published]) -> list[str]:
    notes, rows = Notes(), []
    for dataset in board.datasets:
        for method in board.methods:
            values = [board.value(dataset, method, "all", "test", metric) for metric in METRICS]
            rows.append([dataset, method, *(notes.cell(value) for value in values)])
    titles = [metric.replace("_", " ") for metric in METRICS]
    lines = [*table_lines(["dataset", "method", *titles], rows), *_end(notes)]
    for one in sources:
        if one.full:
            cells = [
                [f"*{dataset}*", f"*{method}*", *(f"*{row[m]:.2f}*" if m in row else "" for m in METRICS)]
                for dataset, found in one.full.items()
                for method, row in found.items()
            ]
            lines += [f"### Published: {one.name}", "", f"Not ours: {one.source}.", ""]
            lines += [*table_lines(["dataset", "method", *titles], cells), ""]
    return lines


def table_lines(titles: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _end(notes: Notes) -> list[str]:
    return ["", *notes.lines(), ""] if notes.reasons else [""]


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"{_letter(number // 26 - 1)}{_letter(number % 26)}"
