"""The pictures, as PNG with the same bytes each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from clinprompt.evaluation.metrics import Floats, Ints
from clinprompt.evaluation.plots import COLOURS, MARKERS
from clinprompt.understanding.intervention import Change
from clinprompt.understanding.space import Planes

_TIGHT = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.0, hspace=0.0)
_TILE = 1.35  # inches
_LETTERED = 12  # layers up to which a heat map's cells hold their number


@dataclass(frozen=True)
class Example:
    """An image and what speaks for its class.

    Attributes:
        image: as the backbone sees it, [H, W, 3], 0…1.
        label: its class's number.
        maps: [G, G] before and after, at least 0; drawn over the whole image.
        probabilities: of its class, before and after.
    """

    image: Floats
    label: int
    maps: tuple[Floats, Floats]
    probabilities: tuple[float, float]


def attention_figure(examples: Sequence[Example], names: Sequence[str]) -> Figure:
    """A row per class; per image the image itself, the map before and the map after."""
    rows = [[example for example in examples if example.label == label] for label in range(len(names))]
    across = max(len(row) for row in rows)
    height, width = examples[0].image.shape[:2]
    tile = _TILE * max(1.0, width / height)  # three planes of a volume are wider than a picture
    figure = Figure(figsize=(3 * across * tile + 0.4, len(names) * (_TILE + 0.22) + 0.2), layout=_TIGHT)
    grid = figure.subplots(len(names), 3 * across, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, name, line in zip(rows, names, grid, strict=True):
        line[0].text(-0.06, 0.5, name, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
        for k, example in enumerate(row):
            before, after = example.probabilities
            titles = ["test image", f"before {before:.2f}", f"after {after:.2f}"]
            for axes, title, heat in zip(line[3 * k : 3 * k + 3], titles, (None, *example.maps), strict=True):
                _overlay(axes, example.image, heat)
                axes.set_title(title, fontsize=8, pad=2)
    return figure


def _overlay(axes: Axes, image: Floats, heat: Floats | None) -> None:
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(image, vmin=0, vmax=1, extent=extent)
    if heat is not None and heat.max() > 0:
        strength = heat / heat.max()
        # Where nothing speaks for the class, the image stays as it is.
        axes.imshow(strength, cmap="plasma", vmin=0, vmax=1, alpha=0.6 * strength, extent=extent)


def space_figure(planes: Planes, labels: Ints, names: Sequence[str]) -> Figure:
    """The test images before and after, and the classes' texts as stars."""
    figure = Figure(figsize=(9.4, 5.0), layout="constrained")
    panels = figure.subplots(1, 2, sharex=planes.shared, sharey=planes.shared)
    for axes, title, images, texts in zip(panels, ("before", "after"), planes.images, planes.texts, strict=True):
        for c, name in enumerate(names):
            x, y = images[labels == c].T
            colour, marker = COLOURS[c % len(COLOURS)], MARKERS[c % len(MARKERS)]
            axes.scatter(x, y, s=16, alpha=0.55, linewidths=0, color=colour, marker=marker, label=name)
        if texts is not None:
            shades = [COLOURS[c % len(COLOURS)] for c in range(len(names))]
            positions = _side_by_side(texts, 0.045 * np.ptp(np.concatenate([images, texts]), axis=0))
            axes.scatter(*positions.T, s=330, marker="*", color=shades, edgecolors="black", linewidths=1.1, zorder=3)
        axes.set_title(title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
    panels[0].set_xlabel(f"{planes.how} of unit features")
    handles, labels_ = panels[0].get_legend_handles_labels()
    if any(texts is not None for texts in planes.texts):
        star = panels[0].scatter([], [], s=150, marker="*", color="white", edgecolors="black")
        handles, labels_ = [*handles, star], [*labels_, "text of a class"]
    figure.legend(handles, labels_, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def _side_by_side(points: Floats, step: Floats) -> Floats:
    """The points [n, 2], moved to the right by whole steps [2] where they would lie on an earlier one."""
    placed = points.copy()
    for n in range(1, len(placed)):
        while (np.abs(placed[:n] - placed[n]) < 0.9 * step).all(axis=1).any():
            placed[n, 0] += step[0]
    return placed


def change_figure(start: Change, end: Change) -> Figure:
    """The change by text layer and row, before and after tuning on one scale; and what of it depends on the image."""
    layers, rows = end.total.shape
    figure = Figure(figsize=(max(10.5, 1.1 * rows + 2.4), max(2.8, 0.34 * layers + 1.5)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    names = [str(n + 1) for n in range(end.prefix)]
    names += [f"L-{rows - n - 1}" if n < rows - 1 else "L" for n in range(end.prefix, rows)]
    top, most_varying = max(float(start.total.max()), float(end.total.max())), float(end.varying.max())
    titles = ("bent before tuning", "bent after tuning", "after tuning: varies with the image")
    shown = (start.total, top), (end.total, top), (end.varying, most_varying)
    for axes, title, (values, scale) in zip(panels, titles, shown, strict=True):
        picture = axes.imshow(100 * values, cmap="viridis", vmin=0, vmax=100 * scale or 1, aspect="auto")
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(rows), names, fontsize=9)
        axes.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
        axes.set_xlabel("row (L: the last)")
        axes.axvline(end.prefix - 0.5, color="white", linewidth=3)
        figure.colorbar(picture, ax=axes, label="% of the row's length")
        if layers <= _LETTERED:
            for (layer, row), value in np.ndenumerate(values):
                shade = "black" if value > 0.6 * scale else "white"
                cell = axes.text(row, layer, f"{100 * value:.2g}", ha="center", va="center", color=shade, fontsize=7)
                cell.set_in_layout(False)
    panels[0].set_ylabel("layer of the text tower")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure."""
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
