"""The report's pictures: thumbnails, and line charts in the style of the evaluation's plots."""

import base64
import io
from dataclasses import dataclass
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from clinprompt.data.codecs import Intensity, decode_image
from clinprompt.evaluation.plots import COLOURS, STYLES

THUMBNAIL = 144  # pixels of the longer side
SIZE = (5.6, 3.2)  # inches of a chart


@dataclass(frozen=True)
class Chart:
    """A line chart, ready for the template: its title, and an SVG as an address that needs no other file."""

    title: str
    source: str


def data_uri(data: bytes, kind: str) -> str:
    """The bytes as an address that needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as an address that needs no other file, and whether it is wide: three planes of a volume."""

    source: str
    wide: bool


def thumbnail(data: bytes, intensity: Intensity) -> Thumbnail:
    """A small PNG of an image file, grey where the image is; of a volume three planes."""
    image = decode_image(data, intensity)
    pixels, planes = image.picture(), 1 if len(image.shape) == 2 else 3
    grey = bool((pixels == pixels[:, :, :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]) if grey else pixels)
    scale = planes * THUMBNAIL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return Thumbnail(data_uri(out.getvalue(), "image/png"), planes > 1)


def curve_charts(curves: pd.DataFrame) -> list[Chart]:
    """Loss and accuracy over the epochs; nothing for a method that has no epochs."""
    if "epoch" not in curves or len(curves) < 2:
        return []
    charts = []
    if "loss" in curves and curves["loss"].notna().any():
        charts.append(_chart("Training loss", curves, ["loss"]))
    accuracies = [name for name in curves if str(name).endswith("accuracy") and curves[name].notna().any()]
    if accuracies:
        charts.append(_chart("Accuracy", curves, [str(name) for name in accuracies]))
    return charts


def _chart(title: str, curves: pd.DataFrame, columns: list[str]) -> Chart:
    """Draw columns over the epochs. Each line's SVG group has its column's name as id."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for column, colour, style in zip(columns, cycle(COLOURS), cycle(STYLES)):
        points = curves[["epoch", column]].dropna()
        marker = "o" if len(points) == 1 else None  # which no line would show
        label = column.replace("_", " ")
        axes.plot(*points.T.to_numpy(), gid=column, color=colour, ls=style, lw=2, marker=marker, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, framealpha=0.95)
    return Chart(title, data_uri(_svg(figure), "image/svg+xml"))


def _svg(figure: Figure) -> bytes:
    """The figure with the same bytes each time, and its texts as outlines, which look the same everywhere."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "clinprompt", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return out.getvalue()
