"""Images and classes' texts of one space in the plane, before and after tuning."""

from dataclasses import dataclass

import numpy as np

from clinprompt.evaluation.curves import projection
from clinprompt.evaluation.metrics import Floats


@dataclass(frozen=True)
class Points:
    """Unit features: `images` [n, e] and the classes' `texts` [C, e], or None."""

    images: Floats
    texts: Floats | None


@dataclass(frozen=True)
class Planes:
    """Places in the plane.

    Attributes:
        images: [n, 2] before and after.
        texts: [C, 2] before and after; None where there are none.
        shared: whether both panels are one plane, since the images' features did not change.
        how: "t-SNE", or "PCA" for few images.
    """

    images: tuple[Floats, Floats]
    texts: tuple[Floats | None, Floats | None]
    shared: bool
    how: str


def planes(before: Points, after: Points) -> Planes:
    """Project both; in one plane where the images are the same.

    Images and texts lie in two cones, far from each other (Liang et al., NeurIPS 2022, arXiv 2203.02053): each kind is
    centred first. The same shift of all classes' texts changes no prediction.
    """
    if np.array_equal(before.images, after.images):
        plane, how = projection(np.concatenate([_centred(before.images), *_texts(before), *_texts(after)]))
        n, c = len(before.images), len(before.texts) if before.texts is not None else 0
        images = plane[:n]
        texts = plane[n : n + c] if c else None, plane[n + c :] if after.texts is not None else None
        return Planes((images, images), texts, True, how)
    projections = [projection(np.concatenate([_centred(points.images), *_texts(points)])) for points in (before, after)]
    n = len(before.images)
    first, second = (plane for plane, _ in projections)
    texts = first[n:] if before.texts is not None else None, second[n:] if after.texts is not None else None
    return Planes((first[:n], second[:n]), texts, False, projections[0][1])


def _texts(points: Points) -> list[Floats]:
    return [] if points.texts is None else [_centred(points.texts)]


def _centred(features: Floats) -> Floats:
    """Unit features around their mean, of unit length again."""
    around = features - features.mean(axis=0)
    unit: Floats = around / np.maximum(np.linalg.norm(around, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return unit
