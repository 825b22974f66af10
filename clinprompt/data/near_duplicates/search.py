"""Which pairs of thumbnails may show the same picture: neighbours by a small descriptor, under many views.

A view is one of the eight orientations of a rectangle, as it is or a little cropped, shifted or turned. Each image is
looked up, in every view and in both polarities, among all images as they are.
"""

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from clinprompt.data.near_duplicates.registration import Floats, window

NEIGHBOURS = 5  # of each image
SIMILARITY = 0.92  # of descriptors, at least
_CELLS = 12  # on a side of a descriptor
_POINTS = 4  # on a side of a cell
_ROWS, _COLUMNS = 256, 2048
_CROPS = (0.95, 0.9)  # share of the side that is left, in the middle
_CORNER = 0.025  # shift of a window of 0.95
_TURN = 4.0  # degrees
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Candidates:
    """Pairs of images that may show the same picture.

    Attributes:
        still, moving: their indices [n]; each pair stands once.
        maps: float32 [n,2,3], from places in the still image to places in the moving one (see `registration`).
        inverted: bool [n], whether dark is bright in the moving one.
    """

    still: Indices
    moving: Indices
    maps: Floats
    inverted: NDArray[np.bool_]


def neighbours(thumbnails: NDArray[np.uint8]) -> Candidates:
    """The nearest neighbours of each of the thumbnails [n,s,s]."""
    plain, views = _descriptors(thumbnails)
    moving, still = _nearest(plain, views)
    similar = np.stack([np.einsum("nk,nk->n", view[moving], plain[still]) for view in views])
    return _unique(still, moving, similar)


def _unique(still: Indices, moving: Indices, similar: Floats) -> Candidates:
    """Of a pair that was found in both directions the better; `similar` is [views, pairs]."""
    view = np.abs(similar).argmax(axis=0)
    best = similar[view, np.arange(len(still))]
    low, high = np.minimum(still, moving), np.maximum(still, moving)
    order = np.lexsort((moving, -np.abs(best), high, low))
    first = order[np.r_[True, (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)]] if len(order) else order
    return Candidates(still[first], moving[first], _views()[view[first]], best[first] < 0)


def _descriptors(thumbnails: NDArray[np.uint8]) -> tuple[Floats, list[Floats]]:
    """Unit vectors [n,k] of the thumbnails as they are, and for each view."""
    n, side, _ = thumbnails.shape
    flat = thumbnails.reshape(n, side * side).astype(np.float32)
    weight = window(_CELLS).ravel()
    seen = weight > 1e-6

    def descriptor(view: Floats) -> Floats:
        cells = np.asarray((_sampler(view, side) @ flat.T).T)
        cells = cells - (cells @ weight / weight.sum())[:, None]
        cells = cells[:, seen] * np.sqrt(weight[seen])
        norm = np.linalg.norm(cells, axis=1, keepdims=True)
        return np.ascontiguousarray(cells / np.maximum(norm, 1e-6), dtype=np.float32)

    views = [descriptor(view) for view in _views()]
    return views[0], views


def _nearest(plain: Floats, views: list[Floats]) -> tuple[Indices, Indices]:
    """(index of an image, index of a neighbour) for each of its neighbours that is similar enough in some view."""
    n = len(plain)
    count = min(NEIGHBOURS, n - 1)
    found: list[tuple[Indices, Indices]] = []
    for start in range(0, n if count > 0 else 0, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        best = np.empty((rows.stop - start, n), np.float32)
        for column in range(0, n, _COLUMNS):
            columns = slice(column, column + _COLUMNS)
            block = best[:, columns]
            np.abs(views[0][rows] @ plain[columns].T, out=block)
            for view in views[1:]:
                similar = view[rows] @ plain[columns].T
                np.maximum(block, np.abs(similar, out=similar), out=block)
        own = np.arange(len(best))
        best[own, start + own] = -1
        top = np.argpartition(best, n - count, axis=1)[:, n - count :]
        row, place = np.nonzero(best[own[:, None], top] >= SIMILARITY)
        found.append((row + start, top[row, place]))
    none = np.empty(0, np.intp)
    image, neighbour = zip(*found, strict=True) if found else ((none,), (none,))
    return np.concatenate(image), np.concatenate(neighbour)


@cache
def _views() -> Floats:
    """All views as maps [n,2,3], the first the identity."""
    small = [np.array([[1.0, 0, 0], [0, 1, 0]])]
    small += [np.array([[c, 0, 0], [0, c, 0]]) for c in _CROPS]
    shifts = itertools.product((-_CORNER * 2, _CORNER * 2), repeat=2)
    small += [np.array([[_CROPS[0], 0, x], [0, _CROPS[0], y]]) for x, y in shifts]
    for turn in np.radians((-_TURN, _TURN)):
        small.append(np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]]))
    quarter, mirror = np.array([[0.0, -1], [1, 0]]), np.diag([-1.0, 1])
    turns = [np.linalg.matrix_power(quarter, k) for k in range(4)]
    orientations = [*turns, *(mirror @ turn for turn in turns)]
    return np.stack([o @ view for o in orientations for view in small]).astype(np.float32)


def _sampler(view: Floats, side: int) -> sparse.csr_array:
    """The matrix [cells, side*side] that averages an image over the cells of a descriptor, seen in a view."""
    n = _CELLS * _POINTS
    places = (np.arange(n) + 0.5) / n * 2 - 1
    y, x = np.meshgrid(places, places, indexing="ij")
    across = view[0, 0] * x + view[0, 1] * y + view[0, 2]
    down = view[1, 0] * x + view[1, 1] * y + view[1, 2]
    pixels = [np.clip((place + 1) / 2 * side - 0.5, 0, side - 1.001).ravel() for place in (across, down)]
    (left, right), (top, low) = ((place.astype(np.intp), place - np.floor(place)) for place in pixels)
    step = np.arange(n) // _POINTS
    cell = np.tile((step[:, None] * _CELLS + step[None, :]).ravel(), 4)
    pixel = np.concatenate([(top + a) * side + left + b for a in (0, 1) for b in (0, 1)])
    share = np.concatenate([v * h for v in (1 - low, low) for h in (1 - right, right)]) / _POINTS**2
    return sparse.csr_array((share.astype(np.float32), (cell, pixel)), shape=(_CELLS**2, side * side))
