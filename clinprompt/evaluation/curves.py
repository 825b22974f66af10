"""The numbers behind the plots."""

import numpy as np
import pandas as pd

from clinprompt.evaluation.metrics import Floats, confidence_bin
from clinprompt.evaluation.predictions import Predictions

_NEIGHBOURHOOD = 30  # t-SNE's perplexity; with fewer than four times as many points a plain PCA says more
_POINTS = 2000
_COMPONENTS = 32


def confusion_pairs(predictions: Predictions) -> pd.DataFrame:
    """One row per image: `actual` and `predicted` class ids."""
    names = np.array(predictions.classes)
    predicted = predictions.probabilities.argmax(axis=1)
    return pd.DataFrame({"actual": names[predictions.labels], "predicted": names[predicted]})


def roc_points(predictions: Predictions) -> pd.DataFrame:
    """One-vs-rest ROC curves: `class`, `fpr`, `tpr`; a class that all or no images are of has none."""
    from sklearn.metrics import roc_curve  # takes seconds to import

    parts = []
    for c, class_id in enumerate(predictions.classes):
        inside = predictions.labels == c
        if inside.any() and not inside.all():
            fpr, tpr, _ = roc_curve(inside, predictions.probabilities[:, c])
            parts.append(pd.DataFrame({"class": class_id, "fpr": fpr, "tpr": tpr}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["class", "fpr", "tpr"])


def reliability_bins(predictions: Predictions, bins: int) -> pd.DataFrame:
    """Mean top-label `confidence`, `accuracy` and `count` of each equal-width bin that holds an image."""
    confidence = predictions.probabilities.max(axis=1, initial=0)
    hit = predictions.probabilities.argmax(axis=1) == predictions.labels
    frame = pd.DataFrame({"bin": confidence_bin(confidence, bins), "confidence": confidence, "accuracy": hit * 1.0})
    table = frame.groupby("bin").agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), count=("confidence", "size")
    )
    return table.reset_index(drop=True)


def projection(features: Floats) -> tuple[Floats, str]:
    """Features [n, e] in the plane [n, 2], and the name of what was done: PCA, then t-SNE where images are enough."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    size, width = features.shape
    if size < 2:
        return np.zeros((size, 2)), "PCA"
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    with threadpool_limits(1):  # more threads would add in another order each time
        reduced = PCA(min(_COMPONENTS, size, width), svd_solver="full").fit_transform(unit)
        if size < 4 * _NEIGHBOURHOOD or reduced.shape[1] < 2:
            return np.pad(reduced, ((0, 0), (0, 2)))[:, :2], "PCA"
        tsne = TSNE(perplexity=_NEIGHBOURHOOD, init="pca", random_state=0)
        return tsne.fit_transform(reduced).astype(np.float64), "t-SNE"


def evenly(size: int, most: int = _POINTS) -> np.ndarray:
    """Indices of at most `most` of `size` rows, evenly spread."""
    return np.unique(np.linspace(0, max(0, size - 1), min(size, most)).astype(np.int64))
