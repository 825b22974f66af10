"""Which rows of a matrix are nearly alike: cosines in blocks, so that thousands of texts need no matrix of all."""

from collections.abc import Iterator

import numpy as np

_BLOCK = 512
_DIGITS = 6  # of a cosine: beyond them, the batch that a text shared shows


def cosines(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Of each row the cosines, float32 [i], with the rows before it, in the order of the rows.

    Args:
        vectors: rows of length 1, float32 [N, d].
    """
    for start in range(0, len(vectors), _BLOCK):
        stop = min(start + _BLOCK, len(vectors))
        block = np.round(vectors[start:stop] @ vectors[:stop].T, _DIGITS)
        for i in range(start, stop):
            yield i, block[i - start, :i]
