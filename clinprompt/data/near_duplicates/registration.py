"""Lay one image on another, and say how well they agree: affine registration of many pairs at once.

The registration is Lucas and Kanade's, inverse compositional, from coarse to fine; the Gauss-Newton steps of many pairs
are computed together. It starts from the map that the search found, and mends what that lacks: a few degrees, and
shifts and scales of a few per cent.

A map [2,3] leads from places in one image to places in another: (x, y, 1), from -1 to 1 across and down, to (x, y).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE = 64  # pixels of a thumbnail that the numbers below are made for
_COARSE_STEPS, _FINE_STEPS = 8, 4
_COARSE_DETAIL = 0.6  # pairs below it at half the size are given up
_MARGIN = 2  # pixels along the edges of either image that are not compared
_SIGMAS = (1.0, 3.0)  # pixels; details are what lies between the two Gaussian blurs
_CONTRAST_SIGMA = 4.0  # pixels; details are divided by their own strength around, so that no bright rim decides alone
_CONTRAST_FLOOR = 0.1  # of the image's mean square of details, below which a place counts as flat
_TILES = 4  # on a side
_TILE_ENERGY = 0.02  # share of an image's details; tiles with less tell nothing
_EPSILON = 1e-6


@dataclass(frozen=True)
class Agreement:
    """How well the images of n pairs agree, each pair laid on each other as well as it can be.

    Attributes:
        detail: float32 [n], correlation of texture and edges, of even contrast over the image; 0 where given up.
        worst: float32 [n], the same in the tile where it is lowest, of those that have any.
        maps: float32 [n,2,3], from places in the still image to places in the moving one.
    """

    detail: Floats
    worst: Floats
    maps: Floats


def agreement(still: Floats, moving: Floats, maps: Floats) -> Agreement:
    """Register `moving` [n,s,s] to `still` [n,s,s] from the maps [n,2,3] on, and compare them; s is a multiple of 8."""
    small_still, small_moving = _half(still), _half(moving)
    maps = _register(small_still, small_moving, maps, _COARSE_STEPS, window(small_still.shape[1]), 0)
    detail, worst = _compare(small_still, small_moving, maps, 1)
    rows = np.flatnonzero(detail >= _COARSE_DETAIL)
    detail, worst = np.zeros_like(detail), np.zeros_like(worst)
    if len(rows):
        still, moving = still[rows], moving[rows]
        maps[rows] = _register(still, moving, maps[rows], _FINE_STEPS, np.ones(still.shape[1:], np.float32), _MARGIN)
        detail[rows], worst[rows] = _compare(still, moving, maps[rows], _MARGIN)
    return Agreement(detail, worst, maps)


def _register(still: Floats, moving: Floats, maps: Floats, steps: int, weight: Floats, margin: int) -> Floats:
    """The maps [n,2,3], from places in `still` to places in `moving` (both -1 to 1), after some Gauss-Newton steps."""
    n, side, _ = still.shape
    x, y = grid(side)
    weight = weight.ravel()
    flat = still.reshape(n, -1)
    flat = flat - (flat @ weight / weight.sum())[:, None]
    norm = np.sqrt((flat * flat) @ weight)[:, None] + _EPSILON
    flat = flat / norm
    down, across = np.gradient(still, axis=(1, 2))
    down, across = (g.reshape(n, -1) * (side / 2) / norm for g in (down, across))
    jacobian = np.stack([across * x, across * y, across, down * x, down * y, down], axis=1)
    hessian = (jacobian * weight) @ jacobian.transpose(0, 2, 1)
    damping = 1e-3 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] / 6 + _EPSILON
    inverse = np.linalg.inv(hessian + damping * np.eye(6, dtype=np.float32))
    for _ in range(steps):
        warped, inside = warp(moving, maps, margin)
        w = weight * inside
        total = w.sum(axis=1, keepdims=True) + _EPSILON
        warped = warped - (warped * w).sum(axis=1, keepdims=True) / total
        target = flat - (flat * w).sum(axis=1, keepdims=True) / total
        gain = (warped * target * w).sum(axis=1) / ((warped * warped * w).sum(axis=1) + _EPSILON)
        error = (gain[:, None] * warped - target) * w
        step = (inverse @ (jacobian @ error[:, :, None]))[:, :, 0]
        maps = _compose(maps, step)
    return maps


def _compose(maps: Floats, step: Floats) -> Floats:
    """The maps after the inverse of the small motions `step` [n,6]."""
    motion = np.zeros((len(step), 3, 3), np.float32)
    motion[:, :2, :] = step.reshape(-1, 2, 3)
    motion += np.eye(3, dtype=np.float32)
    singular = np.abs(np.linalg.det(motion)) < 0.1  # the pair has nothing in common
    motion[singular] = np.eye(3)
    return (maps @ np.linalg.inv(motion)).astype(np.float32)


def _compare(still: Floats, moving: Floats, maps: Floats, margin: int) -> tuple[Floats, Floats]:
    """The correlation of the details [n], in all and in the worst tile."""
    n, side, _ = still.shape
    warped, inside = warp(moving, maps, margin)
    x, y = grid(side)
    edge = 1 - 2 * margin / side
    seen = (inside & (np.abs(x) < edge) & (np.abs(y) < edge)).reshape(n, side, side).astype(np.float32)
    a, b = (_details(image, seen) for image in (still, warped.reshape(n, side, side)))
    together, first, second = (_tile_sums(product) for product in (a * b, a * a, b * b))
    energy = [sums / (sums.sum(axis=1, keepdims=True) + _EPSILON) for sums in (first, second)]
    tells = np.maximum(*energy) >= _TILE_ENERGY
    tiles = together / np.sqrt(first * second + _EPSILON)
    whole = together.sum(axis=1) / np.sqrt(first.sum(axis=1) * second.sum(axis=1) + _EPSILON)
    return whole, np.where(tells, tiles, 1).min(axis=1).astype(np.float32)


def _details(images: Floats, seen: Floats) -> Floats:
    """Texture and edges of the pixels that are seen, 0 elsewhere; what is not seen has no influence."""
    side = images.shape[1]
    unit = side / SIDE
    narrow, wide = (
        _blur(images * seen, k) / (_blur(seen, k) + _EPSILON) for k in (_kernel(side, s * unit) for s in _SIGMAS)
    )
    details = (narrow - wide) * seen
    squares = details * details
    around = _kernel(side, _CONTRAST_SIGMA * unit)
    strength = _blur(squares, around) / (_blur(seen, around) + _EPSILON)
    mean = squares.sum(axis=(1, 2), keepdims=True) / (seen.sum(axis=(1, 2), keepdims=True) + _EPSILON)
    even: Floats = (details / np.sqrt(strength + _CONTRAST_FLOOR * mean + _EPSILON)).astype(np.float32)
    return even


def _blur(images: Floats, kernel: Floats) -> Floats:
    blurred: Floats = np.asarray(kernel @ images @ kernel.T, dtype=np.float32)
    return blurred


@cache
def _kernel(side: int, sigma: float) -> Floats:
    """A Gaussian blur along one axis as a matrix [side, side]."""
    places = np.arange(side)
    return np.exp(-0.5 * ((places[:, None] - places[None]) / sigma) ** 2).astype(np.float32)


def _tile_sums(values: Floats) -> Floats:
    """Sums [n, tiles] over square tiles of [n,s,s]."""
    n, side, _ = values.shape
    tile = side // _TILES
    return values.reshape(n, _TILES, tile, _TILES, tile).sum(axis=(2, 4)).reshape(n, -1)


def warp(images: Floats, maps: Floats, margin: int) -> tuple[Floats, NDArray[np.bool_]]:
    """The images [n,s,s] where the maps point, bilinear, as [n,s*s], and whether that is `margin` pixels inside."""
    n, side, _ = images.shape
    x, y = grid(side)
    across, down = (maps[:, row, 0:1] * x + maps[:, row, 1:2] * y + maps[:, row, 2:3] for row in (0, 1))
    edge = 1 - 2 * margin / side
    inside = (np.abs(across) < edge) & (np.abs(down) < edge)
    across, down = (np.clip((place + 1) * (side / 2) - 0.5, 0, side - 1.001) for place in (across, down))
    left, top = across.astype(np.int32), down.astype(np.int32)
    right_share, low_share = across - left, down - top
    first = top * side + left + (np.arange(n, dtype=np.int32) * side * side)[:, None]
    flat = images.ravel()
    upper = flat[first] * (1 - right_share) + flat[first + 1] * right_share
    lower = flat[first + side] * (1 - right_share) + flat[first + side + 1] * right_share
    return upper * (1 - low_share) + lower * low_share, inside


@cache
def grid(side: int) -> tuple[Floats, Floats]:
    """Places of the pixels' centres, x and y, each [side*side], -1 to 1."""
    places = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(places, places)
    return x.ravel(), y.ravel()


def window(side: int) -> Floats:
    """Weights [side, side], 1 in the middle and 0 outside the inscribed circle."""
    x, y = grid(side)
    return np.cos(np.pi / 2 * np.minimum(np.hypot(x, y), 1)).reshape(side, side).astype(np.float32)


def _half(images: Floats) -> Floats:
    """[n,s,s] at half the size, by averaging."""
    n, side, _ = images.shape
    return images.reshape(n, side // 2, 2, side // 2, 2).mean(axis=(2, 4))
