"""A protocol's results as a figure, with the same bytes each time."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clinprompt.evaluation.metric_names import OVERALL
from clinprompt.evaluation.plots import COLOURS, MARKERS, STYLES
from clinprompt.experiments.tables.markdown import TITLES
from clinprompt.experiments.tables.published import Published
from clinprompt.experiments.tables.results_table import ResultsTable, TableCell, Value
from clinprompt.files import atomic

_COLUMNS = 3


def write_figure(path: Path, board: ResultsTable, metric: str, sources: Sequence[Published]) -> None:
    """A panel for each dataset, and one of their mean with published numbers as faint lines. PNG."""
    names = [*board.datasets, *(["mean"] if len(board.datasets) > 1 else [])]
    columns = min(len(names), _COLUMNS)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(4.2 * columns, 6.4), 3.6 * rows + 0.6), layout="constrained")
    title = (TITLES[board.protocol], f"{OVERALL[metric].name}, bars: deviation over seeds")
    figure.suptitle("\n".join(title) if columns == 1 else "; ".join(title), fontsize=11)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for name, axes in zip(names, panels, strict=False):
        _panel(axes, name, board, metric, sources if name == "mean" else [])
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    with atomic(path) as partial, partial.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def _panel(axes: Axes, name: str, board: ResultsTable, metric: str, sources: Sequence[Published]) -> None:
    ticks = _ticks(board)
    axes.set_title(name if name != "mean" else f"mean over {len(board.datasets)} datasets", fontsize=10)
    axes.set_xticks(range(len(ticks)), [label.replace("_", " ") for label, *_ in ticks])
    axes.set_ylabel(f"{OVERALL[metric].name}, %")
    axes.grid(axis="y", alpha=0.25)
    for number, method in enumerate(board.methods):
        entries = [_entry(board, name, method, group, test, metric) for _, group, test in ticks]
        points = [(x, entry) for x, entry in enumerate(entries) if isinstance(entry, Value)]
        if not points:
            continue
        shift = 0.06 * (number - (len(board.methods) - 1) / 2) / max(len(board.methods), 1)
        axes.errorbar(
            [x + 4 * shift for x, _ in points],
            [value.mean for _, value in points],
            yerr=[value.deviation or 0 for _, value in points],
            label=method,
            color=COLOURS[number % len(COLOURS)],
            marker=_of(MARKERS, number),
            linestyle=_of(STYLES, number) if _is_curve(board) else "none",
            markersize=5,
            capsize=2,
            linewidth=1.4,
        )
    for source in sources:
        for method, row in source.averages(board.protocol).items():
            published_points = [(x, row[label]) for x, (label, *_) in enumerate(ticks) if label in row]
            if source.metric == metric and method in board.methods and published_points:
                label, colour = f"published, {source.name} (faint)", COLOURS[board.methods.index(method) % len(COLOURS)]
                axes.plot(*zip(*published_points, strict=True), color=colour, linewidth=3, alpha=0.25, label=label)


def _of(cycle: tuple[str, ...], number: int) -> str:
    """Shifted by one after each round of colours, so that no two methods look alike."""
    return cycle[(number + number // len(COLOURS)) % len(cycle)]


def _ticks(board: ResultsTable) -> list[tuple[str, str, str]]:
    """(label, group, test) of the places on the x axis."""
    if board.protocol == "base_to_novel":
        return [(test, "all", test) for test in ("base", "novel", "harmonic_mean")]
    return [("all" if group == "all" else group, group, "test") for group in board.groups]


def _is_curve(board: ResultsTable) -> bool:
    return board.protocol in ("few_shot", "label_efficiency")


def _entry(board: ResultsTable, name: str, method: str, group: str, test: str, metric: str) -> TableCell:
    if name == "mean":
        return board.average(method, group, test, metric)
    return board.value(name, method, group, test, metric)
