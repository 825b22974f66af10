"""Figures of a candidate, on the test split, as PNG with the same bytes each time."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from clinprompt.evaluation.curves import confusion_pairs, evenly, projection, reliability_bins, roc_points
from clinprompt.evaluation.metrics import Floats, Ints, confusion
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.table import SCORES

# Okabe and Ito's colours, told apart with every common kind of colour vision; line style and marker repeat the message.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D00")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#666666"


def write_score_plot(
    folder: Path, frame: pd.DataFrame, predictions: Predictions, *, names: list[str], title: str, score: str
) -> None:
    """Write the figure of a score that the model estimates beside the class.

    Args:
        frame: the rows of the predictions, with `table.SCORES`.
    """
    actual, estimated = (frame[column].to_numpy(np.float64) for column in SCORES)
    _save(score_figure(actual, estimated, predictions.labels, names, title, score), folder / "score.png")


def write_plots(
    folder: Path, predictions: Predictions, features: Floats, *, names: list[str], title: str, bins: int
) -> None:
    """Write the figures and the CSV files that `dvc plots` draws from.

    Args:
        features: [n, e] of the same images.
        names: the classes' clinical names.
        title: what was measured, as "brain-phantom: coop, seed 1".
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs, curves, table = confusion_pairs(predictions), roc_points(predictions), reliability_bins(predictions, bins)
    for name, data in {"confusion": pairs, "roc": curves, "reliability": table}.items():
        data.to_csv(folder / f"{name}.csv", index=False, float_format="%.6f", lineterminator="\n")
    _save(confusion_figure(predictions, names, title), folder / "confusion.png")
    _save(roc_figure(curves, dict(zip(predictions.classes, names, strict=True)), title), folder / "roc.png")
    _save(reliability_figure(table, title), folder / "reliability.png")
    _save(projection_figure(predictions, features, names, title), folder / "projection.png")


def confusion_figure(predictions: Predictions, names: list[str], title: str) -> Figure:
    """Counts and shares of each actual class."""
    predicted = predictions.probabilities.argmax(axis=1)
    table = confusion(predictions.labels, predicted, np.ones((1, len(predictions))), len(names))[0]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(4.6, 0.9 * len(names) + 2.2)
    figure, axes = _figure(title, (side + 0.9, side))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 10 if len(names) <= 8 else 7
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if share[row, column] > 0.55 else "black"
        text = f"{count:.0f}\n{share[row, column]:.0%}"
        cell = axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
        cell.set_in_layout(False)  # it lies within the axes; measuring hundreds of them takes seconds
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1))
    bar.set_label("of the actual class")
    return figure


def score_figure(actual: Floats, estimated: Floats, labels: Ints, names: list[str], title: str, score: str) -> Figure:
    """Estimated against actual scores [n] by class, with the line where they are equal; unknown ones are left out."""
    figure, axes = _figure(title, (5.6, 5.2))
    for c, name in enumerate(names):
        part = (labels == c) & np.isfinite(actual)
        axes.scatter(
            actual[part], estimated[part], s=18, alpha=0.6, linewidths=0, label=name,
            color=COLOURS[c % len(COLOURS)], marker=MARKERS[c % len(MARKERS)],
        )  # fmt: skip
    ends = [float(bound([axes.get_xlim(), axes.get_ylim()])) for bound in (np.min, np.max)]
    axes.plot(ends, ends, color="grey", lw=1, ls="--", zorder=0)
    axes.set_xlabel(score)
    axes.set_ylabel(f"estimated {score}")
    axes.legend(fontsize=9)
    return figure


def roc_figure(curves: pd.DataFrame, names: dict[str, str], title: str) -> Figure:
    """One-vs-rest ROC curves with their areas."""
    figure, axes = _figure(title, (5.6, 5.2))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)), label="chance")
    for c, (class_id, name) in enumerate(names.items()):
        curve = curves[curves["class"] == class_id]
        area = float(np.trapezoid(curve["tpr"], curve["fpr"])) if len(curve) else None
        label = f"{name}: AUROC {area:.3f}" if area is not None else f"{name}: undefined"
        axes.plot(curve["fpr"], curve["tpr"], color=_of(COLOURS, c), linestyle=_of(STYLES, c), linewidth=2, label=label)
    _unit_square(axes, "false positive rate (1 - specificity)", "true positive rate (sensitivity)")
    axes.legend(loc="lower right", fontsize=9, framealpha=0.95)
    return figure


def reliability_figure(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy against confidence per bin, above the number of images in each bin."""
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.set_title(title, fontsize=11)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)), label="perfectly calibrated")
    upper.vlines(
        table["confidence"], table["confidence"], table["accuracy"], color=COLOURS[1], linewidth=2, label="gap"
    )
    upper.plot(table["confidence"], table["accuracy"], color=COLOURS[0], marker="o", linewidth=1.5, label="accuracy")
    _unit_square(upper, "", "accuracy")
    upper.legend(loc="upper left", fontsize=9, framealpha=0.95)
    lower.bar(table["confidence"], table["count"], width=0.02, color=COLOURS[0])
    lower.set_xlabel("confidence of the predicted class")
    lower.set_ylabel("images")
    lower.grid(axis="y", alpha=0.25)
    return figure


def projection_figure(predictions: Predictions, features: Floats, names: list[str], title: str) -> Figure:
    """The frozen image features in the plane; wrongly classified images are ringed."""
    chosen = evenly(len(predictions))
    plane, how = projection(features[chosen])
    labels = predictions.labels[chosen]
    wrong = predictions.probabilities[chosen].argmax(axis=1) != labels
    figure, axes = _figure(title, (6.4, 5.6))
    for c, name in enumerate(names):
        points = plane[labels == c]
        colour, marker = _of(COLOURS, c), _of(MARKERS, c)
        axes.scatter(
            points[:, 0], points[:, 1], s=22, alpha=0.75, linewidths=0, label=name, color=colour, marker=marker
        )
    missed = plane[wrong]
    ring = axes.scatter(missed[:, 0], missed[:, 1], s=58, facecolors="none", edgecolors="black", linewidths=0.9)
    ring.set_label("classified wrongly")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(
        f"image features, {how}: distances far apart carry no meaning" if how == "t-SNE" else "features, PCA"
    )
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _figure(title: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    return figure, axes


def _of(cycle: tuple[str, ...], c: int) -> str:
    return cycle[c % len(cycle)]


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
