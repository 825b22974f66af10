"""From a decoded volume to the numbers that a tower over volumes takes. Served models carry this code."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clinprompt.data.codecs.base import VOLUME, DecodedImage


@dataclass(frozen=True)
class VolumePreprocessing:
    """What a tower over volumes expects: the foreground of a volume, on its grid of voxels.

    The foreground is the box around all voxels above the darkest grey. Without `spacing` it is stretched to the grid
    along each axis for itself, as M3D-CLIP was trained on it; with `spacing` its middle becomes the grid's, and what
    lies beyond the grid is cut off, so that sizes in millimetres are kept.

    Attributes:
        volume: slices, rows and columns of the input.
        intensity: "min_max" (values in 0…1, as M3D-CLIP was trained) or "z_score" (mean 0, deviation 1).
        spacing: millimetres from voxel to voxel along slices, rows and columns; None stretches.
    """

    volume: tuple[int, int, int]
    intensity: str = "min_max"
    spacing: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.intensity not in ("min_max", "z_score"):
            raise ValueError(f"intensity must be 'min_max' or 'z_score', found {self.intensity!r}")
        if self.spacing is not None and not min(self.spacing) > 0:
            raise ValueError(f"spacing must be above 0 millimetres, found {self.spacing}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what `apply` gives."""
        return (1, *self.volume)

    def apply(self, image: DecodedImage) -> np.ndarray:
        """Crop, resize and scale a decoded volume to float32 [1, slices, rows, columns].

        Raises:
            ValueError: it is a picture, or its spacing is asked for and not known.
        """
        dark = image.values.min()  # so that what is beyond the volume, of weight 0, is as dark
        values = (self.place(image, image.values - dark) + np.float32(dark)) / np.float32(255)
        if self.intensity == "z_score":
            values = (values - values.mean()) / max(float(values.std()), 1e-6)
        return np.ascontiguousarray(values[None], dtype=np.float32)

    def place(self, image: DecodedImage, values: np.ndarray) -> np.ndarray:
        """Other values uint8 [slices, rows, columns, 1] of a volume's voxels, where `apply` puts these: float32.

        Raises:
            ValueError: it is a picture, the values are of another grid, or its spacing is asked for and not known.
        """
        if len(image.shape) != 3:
            raise ValueError("it is a picture, and the backbone reads volumes")
        if values.shape != image.values.shape:
            raise ValueError(f"the grids are {image.shape} and {values.shape[:-1]} voxels")
        part = values[..., 0][_foreground(image.values[..., 0])]
        return resample(part, self._weights(part.shape, image.spacing))

    def _weights(self, sides: tuple[int, ...], spacing: tuple[float, ...] | None) -> list[np.ndarray]:
        """Of each axis of a foreground, what its voxels add to those of the grid [after, before]."""
        if self.spacing is None:
            return [_resizing(before, after) for before, after in zip(sides, self.volume, strict=True)]
        if spacing is None:
            raise ValueError("the file does not tell its voxels' spacing, which the backbone needs")
        steps = [wanted / given for wanted, given in zip(self.spacing, spacing, strict=True)]
        return [_placing(*axis) for axis in zip(sides, self.volume, steps, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        spacing = None if self.spacing is None else list(self.spacing)
        return {"kind": VOLUME, **asdict(self), "volume": list(self.volume), "spacing": spacing}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VolumePreprocessing":
        """The inverse of `to_dict`."""
        slices, rows, columns = (int(side) for side in values["volume"])
        return cls((slices, rows, columns), values["intensity"], three_sides(values.get("spacing")))


def three_sides(values: Any) -> tuple[float, float, float] | None:
    """Three numbers of a config; None where it has none."""
    if values is None:
        return None
    first, second, third = (float(value) for value in values)
    return first, second, third


def resample(values: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [a, b, c] from uint8 [slices, rows, columns] by weights [a, slices], [b, rows] and [c, columns].

    A slice is widened at a time, so that the memory is the grid's and not the file's.
    """
    slices, rows, columns = weights
    grid = np.zeros((len(slices), len(rows), len(columns)), np.float32)
    for number, plane in enumerate(values):
        used = np.flatnonzero(slices[:, number])
        if len(used):
            small = rows @ plane.astype(np.float32) @ columns.T
            grid[used] += slices[used, number, None, None] * small
    return grid


def sampling(before: int, places: np.ndarray, step: float) -> np.ndarray:
    """Weights [places, before] of linear interpolation; averages over `step` voxels where that is more than one.

    Beyond the last centres nothing is seen: rows there are 0.
    """
    width = max(step, 1.0)
    weights = np.clip(1 - np.abs(np.arange(before)[None] - places[:, None]) / width, 0, None)
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)


def _foreground(values: np.ndarray) -> tuple[slice, ...]:
    """The box around what is brighter than the darkest voxel; all of a volume of one grey."""
    darkest = values.min()
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(values.max(axis=others) > darkest)
        if not len(used):
            return (slice(None),) * 3
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _resizing(before: int, after: int) -> np.ndarray:
    """Weights [after, before] of linear interpolation; where sides shrink, averages over what becomes one voxel."""
    scale = before / after
    places = (np.arange(after) + 0.5) * scale - 0.5
    weights = np.clip(1 - np.abs(np.arange(before)[None] - places[:, None]) / max(scale, 1.0), 0, None)
    if scale < 1:  # beyond the last centre the edge goes on
        weights[places < 0, 0] = 1
        weights[places > before - 1, -1] = 1
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _placing(before: int, after: int, step: float) -> np.ndarray:
    """Weights [after, before] of voxels that are `step` of the given ones apart, about the same middle; 0 beyond."""
    places = (np.arange(after) - (after - 1) / 2) * step + (before - 1) / 2
    reach = max(step, 1.0)
    # The voxels beyond the edges are dark: they have their share of the weight, too.
    beyond = int(np.ceil(reach))
    voxels = np.arange(-beyond, before + beyond)
    weights = np.clip(1 - np.abs(voxels[None] - places[:, None]) / reach, 0, None)
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    return weights[:, beyond : before + beyond].astype(np.float32)
