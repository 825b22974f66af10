"""A protocol's results as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from clinprompt.evaluation.estimate import deviation_text
from clinprompt.evaluation.metric_names import OVERALL, SELECTABLE
from clinprompt.experiments.tables.published import Published
from clinprompt.experiments.tables.results_table import ResultsTable, TableCell, Value
from clinprompt.experiments.tables.training import settings_sentence, table_lines, training_lines

TITLES = {
    "full": "Full training split",
    "few_shot": "Few-shot: images per class",
    "base_to_novel": "Base-to-novel",
    "cross_validation": "Cross-validation: mean over folds and seeds, on the held-out test split",
    "label_efficiency": "Label efficiency: share of the training split",
}
_TESTS = {"base": "base", "novel": "novel", "harmonic_mean": "harmonic mean"}


@dataclass
class Notes:
    """Footnotes: the reasons for missing numbers, each listed once below the table."""

    reasons: list[str] = field(default_factory=list)

    def cell(self, entry: TableCell) -> str:
        """A number, or a dash with the reason's letter."""
        if isinstance(entry, Value):
            return deviation_text(entry.mean, entry.deviation)
        if entry.reason not in self.reasons:
            self.reasons.append(entry.reason)
        return f"– ({_letter(self.reasons.index(entry.reason))})"

    def lines(self) -> list[str]:
        """The list below the table."""
        return [f"- ({_letter(n)}) missing: {reason}" for n, reason in enumerate(self.reasons)]


def render(board: ResultsTable, metric: str, sources: Sequence[Published]) -> str:
    """The tables of a protocol: each dataset's, and the average over them with the published ones below."""
    head = [f"## {TITLES[board.protocol]}", "", _about(board, metric), ""]
    training = training_lines(board)
    if board.protocol == "full":
        return "\n".join([*head, *_full(board, sources), *training]) + "\n"
    sections = [_dataset(board, dataset, metric) for dataset in board.datasets]
    average = _average(board, metric, [source for source in sources if source.metric == metric])
    return "\n".join([*head, *(line for section in [*sections, average, training] for line in section)]) + "\n"


def _about(board: ResultsTable, metric: str) -> str:
    results = board.shown()
    if not results:
        return "There are no results yet: `dvc repro experiments/dvc.yaml` makes them."
    backbones = sorted({result["backbone"]["name"] for result in results})
    unit = "" if board.protocol == "full" else f"{OVERALL[metric].title} on the test split, "
    sentence = f"{unit}percent, mean ± sample standard deviation over the seeds {', '.join(map(str, board.seeds))}; "
    sentence = sentence[0].upper() + sentence[1:] + f"backbone {', '.join(backbones)}."
    if len(backbones) > 1 or len({result["backbone"]["digest"] for result in results}) > 1:
        sentence += " **Not all rows have the same backbone.**"
    return f"{sentence} {settings_sentence(results)}".rstrip()


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
    is_base_to_novel = board.protocol == "base_to_novel"
    for method in board.methods:
        row = [notes.cell(board.average(method, group, test, metric)) for _, group, test in columns]
        rows.append(
            [method, *row, *([notes.cell(board.harmonic_of_means(method, metric))] if is_base_to_novel else [])]
        )
    titles = [title for title, *_ in columns]
    if is_base_to_novel:
        titles = ["base", "novel", "mean of harmonic means", "harmonic mean of the means"]
    has_average = len(board.datasets) > 1
    table_text = [*table_lines(["method", *titles], rows), *_end(notes)] if has_average else []
    title = f"### Mean over {len(board.datasets)} datasets: {', '.join(board.datasets)}"
    return [*([title, ""] if has_average else []), *table_text, *_published(board, columns, sources)]


def _published(board: ResultsTable, columns: list[tuple[str, str, str]], sources: Sequence[Published]) -> list[str]:
    lines = []
    for source in sources:
        rows = source.averages(board.protocol)
        if not rows:
            continue
        keys = list(_TESTS) if board.protocol == "base_to_novel" else list(next(iter(rows.values())))
        titles = [_TESTS.get(key, key) for key in keys]
        cells = [[f"*{method}*", *(f"*{row[key]:.2f}*" for key in keys)] for method, row in rows.items()]
        differing = sorted(set(source.datasets) ^ set(board.datasets))
        warning = " **Other datasets than ours above.**" if differing else ""
        lines += [f"### Published: {source.name}", "", f"Not ours: {source.source}.{warning}", ""]
        lines += [*table_lines(["method", *titles], cells), ""]
    return lines


def _full(board: ResultsTable, sources: Sequence[Published]) -> list[str]:
    notes, rows = Notes(), []
    for dataset in board.datasets:
        for method in board.methods:
            values = [board.value(dataset, method, "all", "test", metric) for metric in SELECTABLE]
            rows.append([dataset, method, *(notes.cell(value) for value in values)])
    titles = [OVERALL[metric].name for metric in SELECTABLE]
    lines = [*table_lines(["dataset", "method", *titles], rows), *_end(notes)]
    for source in sources:
        if source.full and source.language_model is not None:
            lines += [f"Not shown here, as its language model is {source.language_model}: {source.name}.", ""]
        elif source.full:
            cells = [
                [f"*{dataset}*", f"*{method}*", *(f"*{row[m]:.2f}*" if m in row else "" for m in SELECTABLE)]
                for dataset, by_method in source.full.items()
                for method, row in by_method.items()
            ]
            lines += [f"### Published: {source.name}", "", f"Not ours: {source.source}.", ""]
            lines += [*table_lines(["dataset", "method", *titles], cells), ""]
    return lines


def _end(notes: Notes) -> list[str]:
    return ["", *notes.lines(), ""] if notes.reasons else [""]


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"{_letter(number // 26 - 1)}{_letter(number % 26)}"
