"""Two scanners that turn a deformed brain into a volume: contrast, bias field, noise, resolution, orientation."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from clinprompt.demo.volumes.anatomy import CUBE, SPACING, Array, anatomy
from clinprompt.demo.volumes.deformation import Deformation, at, smooth_noise

_PER_FWHM = 1 / np.sqrt(8 * np.log(2))  # deviations of a Gaussian in its width at half height
_EDGE = 0.04  # grey below which a voxel is outside the brain


@dataclass(frozen=True)
class Scanner:
    """How a scanner makes grey values of tissue.

    Attributes:
        gamma: the exponent of the template's grey values, 0 to 1.
        bias: deviation of the logarithm of the smooth field that the grey values are multiplied with.
        noise: deviation of the noise of either channel of the magnitude, in parts of the brightest tissue.
        thickness: of a slice, in sides of its pixels.
        bright: the brightest tissue's grey.
        flips: of the stored axes against right, anterior, superior.
    """

    gamma: float
    bias: float
    noise: float
    thickness: float
    bright: float
    flips: tuple[int, int, int]


SCANNERS = {
    "A": Scanner(gamma=1.0, bias=0.06, noise=0.04, thickness=1.0, bright=1000, flips=(1, 1, 1)),
    "B": Scanner(gamma=1.5, bias=0.14, noise=0.055, thickness=1.6, bright=600, flips=(-1, -1, 1)),
}


@dataclass(frozen=True, eq=False)
class Pose:
    """How a head lies in the scanner, and how large it is.

    Attributes:
        turn: rotation matrix [3, 3].
        shift: in millimetres [3].
        scale: lengths, in parts of the template's.
    """

    turn: Array
    shift: Array
    scale: float


@dataclass(frozen=True, eq=False)
class Scan:
    """What a scanner stores: grey values, int16, the structures' labels, uint8, and the voxels' affine [4, 4] to mm."""

    values: Array
    labels: Array
    affine: Array


def seen_by(name: str, site_shift: float) -> Scanner:
    """A scanner that differs from the first one by `site_shift` times what it does; the grid is its own."""
    first, own = SCANNERS["A"], SCANNERS[name]

    def moved(a: float, b: float) -> float:
        return max(a + site_shift * (b - a), 0.0)

    return Scanner(
        gamma=moved(first.gamma, own.gamma),
        bias=moved(first.bias, own.bias),
        noise=moved(first.noise, own.noise),
        thickness=own.thickness,
        bright=own.bright,
        flips=own.flips,
    )


def random_pose(rng: np.random.Generator, scale: float) -> Pose:
    """A head of some scale, turned and moved by a little."""
    a, b, c = np.radians(rng.normal(0, 4, 3))
    turn = np.eye(3)
    for angle, (i, j) in ((a, (0, 1)), (b, (0, 2)), (c, (1, 2))):
        rotation = np.eye(3)
        rotation[i, i] = rotation[j, j] = np.cos(angle)
        rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ rotation
    return Pose(turn, rng.normal(0, 2.0, 3), scale)


def scan(brain: Deformation, pose: Pose, scanner: Scanner, size: int, rng: np.random.Generator) -> Scan:
    """The brain in a scanner whose slices have `size` rows and columns over 192 mm; 0 outside the brain."""
    side = CUBE / size
    sides = np.array([side, side, side * scanner.thickness])
    shape = tuple(round(CUBE / step) for step in sides)
    steps = sides * scanner.flips
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = -steps * (np.array(shape) - 1) / 2
    places = _in_template(brain, pose, affine, shape)
    tissue = at(_as_sharp_as(tuple(sides)), places)
    seen = np.clip(tissue, 0, 1) ** scanner.gamma * np.exp(_bias(rng, scanner.bias, affine, shape))
    real, imaginary = scanner.noise * rng.standard_normal((2, *shape))
    magnitude = np.where(tissue > _EDGE, np.hypot(seen + real, imaginary), 0)
    labels = ndimage.map_coordinates(anatomy().labels, places, order=0)
    return Scan((magnitude * scanner.bright).round().astype(np.int16), labels, affine)


def _in_template(brain: Deformation, pose: Pose, affine: Array, shape: tuple[int, ...]) -> Array:
    """Where in the template, in its 1 mm voxels, each voxel of a scan comes from [3, *shape]."""
    matrix = pose.turn @ affine[:3, :3] / pose.scale
    origin = pose.turn @ (affine[:3, 3] - pose.shift) / pose.scale
    voxels = np.indices(shape, dtype=np.float32)
    centred = np.tensordot(matrix, voxels, axes=1) + origin[:, None, None, None]  # millimetres from the cube's centre
    centred = centred.astype(np.float32)
    coarse = (centred + CUBE / 2) / np.float32(SPACING) - 0.5
    moved = centred + np.stack([at(u, coarse) for u in brain.displacement])
    return moved + np.float32((CUBE - 1) / 2)


@lru_cache(maxsize=4)
def _as_sharp_as(sides: tuple[float, ...]) -> Array:
    """The template as voxels with these sides in millimetres show it."""
    blurred: Array = ndimage.gaussian_filter(anatomy().t1, [side * _PER_FWHM for side in sides])
    return blurred


def _bias(rng: np.random.Generator, deviation: float, affine: Array, shape: tuple[int, ...]) -> Array:
    """A smooth field [*shape] around 0."""
    field = smooth_noise(rng, 1.0)[0]
    start, step = affine[:3, 3], affine[:3, :3].diagonal()
    grids = [((s + np.arange(n) * d) + CUBE / 2) / SPACING - 0.5 for s, n, d in zip(start, shape, step, strict=True)]
    places = np.stack(np.meshgrid(*grids, indexing="ij")).astype(np.float32)
    return deviation * ndimage.map_coordinates(field, places, order=1, mode="nearest")
