"""Resamples of patients: images of one patient are alike, so whole patients are drawn with replacement."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clinprompt.evaluation.metrics import Floats

# Draws depend on it and on the patients alone: methods on the same images are compared on the same resamples.
SEED = 0
_CHUNK = 4_000_000  # weights in memory at a time: 32 MB


def draw(patients: NDArray[np.str_], resamples: int, seed: int = SEED) -> Iterator[Floats]:
    """Resamples of patients in chunks of weights [r, n]: how often each image's patient was drawn."""
    names, owner = np.unique(patients, return_inverse=True)
    size = len(names)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(1, len(patients)))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(max(1, size), size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield counts[:, owner].astype(np.float64)
