"""The report's pictures: thumbnails, and line charts as inline SVG in the page's own colours."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from clinprompt.data.codecs import Intensity, decode

THUMBNAIL = 144  # pixels of the longer side
WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 34
TICKS = 4


@dataclass(frozen=True)
class Line:
    """A series of a chart: its label, the number of its colour, and the points of an SVG polyline."""

    label: str
    colour: int
    points: str


@dataclass(frozen=True)
class Chart:
    """A line chart, ready for the template; ticks are (position in pixels, label)."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[str, str]]
    y_ticks: list[tuple[str, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def data_uri(data: bytes, kind: str) -> str:
    """The bytes as an address that needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(data: bytes, intensity: Intensity) -> bytes:
    """A small PNG of an image file, grey where the image is."""
    pixels = decode(data, intensity)
    grey = bool((pixels == pixels[:, :, :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]) if grey else pixels)
    scale = THUMBNAIL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()


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
    epochs = curves["epoch"].to_numpy(np.float64)
    values = curves[columns].to_numpy(np.float64)
    bottom, top = _round_range(float(np.nanmin(values)), float(np.nanmax(values)))
    first, last = float(epochs[0]), float(epochs[-1])

    def x(epoch: float) -> str:
        return f"{LEFT + (epoch - first) / (last - first) * (WIDTH - LEFT - RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM):.1f}"

    lines = []
    for colour, column in enumerate(columns):
        pairs = zip(epochs, curves[column].to_numpy(np.float64), strict=True)
        points = " ".join(f"{x(e)},{y(v)}" for e, v in pairs if np.isfinite(v))
        lines.append(Line(column.replace("_", " "), colour, points))
    steps = sorted({float(epochs[round(k * (len(epochs) - 1) / TICKS)]) for k in range(TICKS + 1)})
    levels = [bottom + k * (top - bottom) / TICKS for k in range(TICKS + 1)]
    return Chart(title, lines, [(x(e), f"{e:g}") for e in steps], [(y(v), f"{v:.3g}") for v in levels])


def _round_range(low: float, high: float) -> tuple[float, float]:
    """The range, widened so that four steps between its ends are round numbers."""
    span: Any = max(high - low, 1e-6)
    step = 10.0 ** np.floor(np.log10(span / TICKS))
    step = next(
        step * m for m in (1, 2, 2.5, 5, 10, 20) if np.ceil(high / (step * m)) - np.floor(low / (step * m)) <= TICKS
    )
    bottom = float(np.floor(low / step) * step)
    return bottom, bottom + TICKS * float(step)
