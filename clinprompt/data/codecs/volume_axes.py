"""What the formats of volumes share: any stored axes turned to slices, rows, columns, and the voxels' sides."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clinprompt.data.codecs.base import DecodedImage

_AXES = ("S", "A", "R")  # slices go up, rows to the front, columns to the right


def turned(values: np.ndarray, affine: NDArray[np.float64], *, oriented: bool = True) -> DecodedImage:
    """A volume with its axes along inferior-superior, posterior-anterior and left-right, nothing resampled.

    Args:
        values: [a, b, c], axes in any order and direction.
        affine: [4,4], from indices to millimetres, right, anterior, superior.
        oriented: whether the file tells where the axes point; where it does not the image has no orientation.

    Raises:
        ValueError: the affine leaves out an axis, or a voxel has no size.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt2axcodes, ornt_transform

    if not np.isfinite(affine).all():
        raise ValueError("the orientation holds numbers that are not finite")
    sides = check_spacing(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    try:
        stored = io_orientation(affine)
    except np.linalg.LinAlgError:
        stored = np.full((3, 2), np.nan)
    if np.isnan(stored).any():
        raise ValueError("the orientation leaves out an axis")
    # nibabel's orientations tell each stored axis its new place.
    turn = ornt_transform(stored, axcodes2ornt(_AXES))
    spacing = [0.0] * 3
    for axis, (place, _) in enumerate(turn):
        spacing[int(place)] = sides[axis]
    upright = np.ascontiguousarray(apply_orientation(values, turn))
    code = "".join(ornt2axcodes(stored)) if oriented else None
    return DecodedImage(upright[..., None], tuple(spacing), code)


def check_spacing(sides: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """The voxels' sides in millimetres, to a ten-thousandth.

    Raises:
        ValueError: one is no length.
    """
    if not all(np.isfinite(side) and side > 0 for side in sides):
        raise ValueError(f"the voxels' sides are {', '.join(f'{side:g}' for side in sides)} millimetres")
    return [round(float(side), 4) for side in sides]
