"""Volumes that show the same scan, though their bytes differ: a coarse volume of each, compared without what all share.

All heads look alike, so each coarse volume is compared after the mean of the others is taken off: what is left is what
is a subject's own. It is laid over the grid by the foreground's centre and extent, so that shifted, cropped and
resampled copies agree; ranks instead of greys and a high pass take off gain, contrast and bias field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinprompt.data.volumes import resample, sampling

Floats = NDArray[np.float32]

SIDE = 24  # voxels of the coarse volume along each axis
SAME_VOLUME = 0.75  # correlation of two coarse volumes, less the mean of the others, from which on they are one scan
_REACH = 2.2  # deviations of the foreground to each side of its centre
_FINE, _WIDE = 1.0, 3.0  # voxels; finer patterns are lost with half a voxel's shift, coarser ones are the scanner's
_ROWS = 1024


@dataclass(frozen=True)
class VolumePrints:
    """Of n different volumes: ids, sorted, and coarse volumes float32 [n, 24*24*24] of mean 0 and length 1."""

    ids: list[str]
    coarse: Floats


def volume_print(values: NDArray[np.uint8]) -> Floats:
    """The coarse volume float32 [24*24*24] of uint8 [slices, rows, columns] that are not of one grey."""
    from scipy.ndimage import gaussian_filter  # pictures are taken in without it

    seen = values > values.mean()
    weights = []
    for axis, side in enumerate(values.shape):
        profile = seen.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.float64)
        places = np.arange(side)
        centre = float((profile * places).sum() / profile.sum())
        extent = _REACH * max(float(np.sqrt((profile * (places - centre) ** 2).sum() / profile.sum())), 0.5)
        step = 2 * extent / SIDE
        weights.append(sampling(side, centre + (np.arange(SIDE) + 0.5) * step - extent, step))
    coarse = resample(values, weights)
    # Greys of the background are equal or noise: only the foreground's are ranked, equal ones equally.
    front = coarse > coarse.mean()
    ordered = np.sort(coarse[front])
    ranks = np.zeros(coarse.shape, np.float32)
    ranks[front] = 1 + _ranks(ordered, coarse[front]) / len(ordered)
    flat = (gaussian_filter(ranks, _FINE) - gaussian_filter(ranks, _WIDE)).ravel()
    flat -= flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), np.finfo(np.float32).tiny), np.float32)


def _ranks(ordered: Floats, values: Floats) -> NDArray[np.int64]:
    """Twice the mean rank of each value, so that equal values have equal ranks."""
    return np.asarray(np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right"))


def collect_volumes(rows: Sequence[tuple[str, Floats]]) -> VolumePrints:
    """Prints from rows of id and coarse volume."""
    coarse = np.stack([row[1] for row in rows]) if rows else np.empty((0, SIDE**3), np.float32)
    return VolumePrints([row[0] for row in rows], coarse)


def volume_pairs(prints: VolumePrints) -> list[tuple[int, int, float]]:
    """Places (a < b) and correlation of the pairs that are one scan.

    Of each pair, the mean of all other volumes is taken off; two alone are compared as they are.
    """
    coarse, n = prints.coarse.astype(np.float64), len(prints.ids)
    total = coarse.sum(axis=0)
    with_total, whole = coarse @ total, float(total @ total)
    found = []
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        correlation = _without_others(coarse[rows] @ coarse.T, with_total[rows, None], with_total[None], whole, n)
        first, second = np.nonzero(correlation >= SAME_VOLUME)
        upper = first + start < second
        found += [
            (int(a) + start, int(b), float(correlation[a, b])) for a, b in zip(first[upper], second[upper], strict=True)
        ]
    return found


def _without_others(gram: np.ndarray, sum_a: np.ndarray, sum_b: np.ndarray, whole: float, n: int) -> np.ndarray:
    """Correlation of a - m and b - m, where m is the mean of all n but a and b, from inner products of unit vectors.

    Args:
        gram: a.b of each pair. sum_a, sum_b: of a and b with the sum of all. whole: of that sum with itself.
    """
    if n < 3:
        return gram
    others = n - 2
    a_m, b_m = (sum_a - 1 - gram) / others, (sum_b - 1 - gram) / others
    m_m = (whole - 2 * sum_a - 2 * sum_b + 2 + 2 * gram) / others**2
    lengths = np.sqrt(np.maximum(1 - 2 * a_m + m_m, 1e-12) * np.maximum(1 - 2 * b_m + m_m, 1e-12))
    return np.asarray((gram - a_m - b_m + m_m) / lengths)
