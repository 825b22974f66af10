"""Smooth deformations of the template that give each structure the volume asked for.

A deformation is a backward displacement u in millimetres on the grid of shapes: the deformed brain has at y what the
template has at y + u(y). It is a sum of fields, one for each structure, that pull its border inwards or push it
outwards, and of a subject's own smooth noise. How strong each field must be is found by fixed-point steps.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from clinprompt.demo.volumes.anatomy import GRID, SPACING, STRUCTURES, Array, anatomy

Box = tuple[slice, slice, slice]

LEAST_JACOBIAN = 0.1  # of a deformation: below it, space is nearly folded
_SMOOTHING = {"ventricles": 7.0}  # millimetres: how far around a structure its field reaches
_OTHERS = 4.5
_STEPS = 6
_NODES = 6  # of the noise, along each axis
_ROOM = 5  # voxels: a displacement brings nothing from farther
_PROBE = 0.5  # millimetres: the strength at which the volumes' answer is measured


@dataclass(frozen=True, eq=False)
class Deformation:
    """A deformed brain.

    Attributes:
        displacement: u [3, 64, 64, 64] in millimetres.
        volumes: of `STRUCTURES`, then of the brain, in mm³, as achieved [6].
        jacobian: the smallest determinant of y → y + u(y); above 0 nothing is folded.
    """

    displacement: Array
    volumes: Array
    jacobian: float


def deform(factors: Array, noise: Array) -> Deformation:
    """The template with the structures' volumes times `factors` [5], as far as nothing is folded, and with noise.

    Args:
        noise: a displacement [3, 64, 64, 64] in millimetres that comes on top, as of `smooth_noise`.
    """
    fields, answer = _fields()
    wanted = np.log(anatomy().masks.sum(axis=(1, 2, 3)) * SPACING**3) + np.log(factors)
    strengths = np.zeros(len(STRUCTURES))
    for _ in range(_STEPS):
        got = np.log(_volumes(noise + np.tensordot(strengths, fields, axes=1)))
        strengths = strengths + np.clip(np.linalg.solve(answer, wanted - got), -3, 3)
    displacement = noise + np.tensordot(strengths, fields, axes=1)
    while (least := jacobian(displacement)) < LEAST_JACOBIAN:
        displacement = displacement * 0.93
    return Deformation(displacement.astype(np.float32), _volumes(displacement, brain=True), least)


def smooth_noise(rng: np.random.Generator, amplitude: float) -> Array:
    """A smooth random displacement [3, 64, 64, 64] whose components have the deviation `amplitude`, in millimetres."""
    weights = _bumps()
    field = rng.standard_normal((3, _NODES, _NODES, _NODES))
    for axis in (1, 2, 3):
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return (amplitude * field / field.std()).astype(np.float32)


def jacobian(displacement: Array) -> float:
    """The smallest determinant of the derivative of y → y + u(y)."""
    rows = np.stack([np.stack(np.gradient(u, SPACING)) for u in displacement])
    rows = rows + np.eye(3)[:, :, None, None, None]
    a, b, c = rows
    return float((a * np.cross(b, c, axis=0)).sum(0).min())


def at(volume: Array, places: Array, order: int = 1) -> Array:
    """Values of a volume at places [3, …] in voxels; 0 outside."""
    values: Array = ndimage.map_coordinates(volume, places, order=order, output=np.float32, prefilter=False)
    return values


@lru_cache(maxsize=1)
def _fields() -> tuple[Array, Array]:
    """Each structure's field [5, 3, 64, 64, 64], at most 1 mm, and how the logarithms of all volumes answer to it."""
    fields = []
    for name, mask in zip(STRUCTURES, anatomy().masks, strict=True):
        smooth = ndimage.gaussian_filter(mask, _SMOOTHING.get(name, _OTHERS) / SPACING)
        slope = np.stack(np.gradient(smooth))
        fields.append(slope / np.linalg.norm(slope, axis=0).max())
    stacked = np.stack(fields).astype(np.float32)
    more, less = (np.stack([np.log(_volumes(sign * _PROBE * f)) for f in stacked], axis=1) for sign in (1, -1))
    return stacked, (more - less) / (2 * _PROBE)


def _volumes(displacement: Array, *, brain: bool = False) -> Array:
    """The structures' volumes in mm³ [5], and behind them the brain's."""
    masks = [*anatomy().masks, anatomy().brain] if brain else anatomy().masks
    boxes = zip(masks, _boxes(), strict=False)
    return np.array([_warped(mask, displacement, box).sum(dtype=np.float64) * SPACING**3 for mask, box in boxes])


def _warped(mask: Array, displacement: Array, box: Box) -> Array:
    """What a displacement makes of a mask, inside a box."""
    places = np.mgrid[box].astype(np.float32) + displacement[(slice(None), *box)] / np.float32(SPACING)
    return at(mask, places)


@lru_cache(maxsize=1)
def _boxes() -> list[Box]:
    """The boxes around the structures and the brain, with room for what a displacement brings in."""
    boxes = []
    for mask in (*anatomy().masks, anatomy().brain):
        x, y, z = ndimage.find_objects((mask > 0).astype(np.int8))[0]
        boxes.append((_wider(x), _wider(y), _wider(z)))
    return boxes


def _wider(side: slice) -> slice:
    return slice(max(side.start - _ROOM, 0), min(side.stop + _ROOM, GRID))


@lru_cache(maxsize=1)
def _bumps() -> Array:
    """Weights [64, nodes] of overlapping bumps along an axis."""
    places, nodes = np.linspace(0, 1, GRID), np.linspace(0, 1, _NODES)
    return np.exp(-0.5 * ((places[:, None] - nodes[None]) * (_NODES - 1) / 0.7) ** 2)
