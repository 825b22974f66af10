"""Pairs of different files that show the same picture."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinprompt.data.near_duplicates.fingerprint import Fingerprints
from clinprompt.data.near_duplicates.registration import Floats, agreement
from clinprompt.data.near_duplicates.search import Candidates, Indices, neighbours
from clinprompt.data.near_duplicates.volumes import VolumePrints, volume_pairs

COLUMNS = ("id_a", "id_b", "bits", "correlation")
WORST_TILE = 0.85  # correlation of the details in the tile that agrees least, at least
_SAME_GREYS = 0.98  # correlation of thumbnails of 32 pixels, of pairs that the hash finds
_ROWS, _COLUMNS, _CHUNK = 1024, 8192, 256
_Matches = tuple[Indices, Indices]


def no_pairs() -> pd.DataFrame:
    """An empty table of pairs."""
    return _table([], np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.uint64), np.empty(0, np.float32))


def near_pairs(prints: Fingerprints, bits: int, correlation: float) -> pd.DataFrame:
    """Pairs of images that show the same picture.

    Candidates are pairs whose hashes differ in at most `bits` bits and whose thumbnails hardly differ (all pairs are
    compared), and the nearest neighbours of each image, also mirrored, turned, inverted or cropped. Each candidate is
    laid on its partner, and is kept if their details correlate by at least `correlation`, and nowhere much less: so
    images of the same framing with other content are no pair. Images below 64 pixels have no details to tell by; there
    the hash and the thumbnails are enough. Volumes are compared as `near_duplicates.volumes` says.

    Returns:
        id_a, id_b (id_a < id_b), bits (0 of volumes, which have no hash) and correlation of each pair, sorted.
    """
    tables = [pairs for pairs in (_pictures(prints, bits, correlation), _volumes(prints.volumes)) if len(pairs)]
    return pd.concat(tables).sort_values(["id_a", "id_b"], ignore_index=True) if tables else no_pairs()


def _volumes(prints: VolumePrints) -> pd.DataFrame:
    found = volume_pairs(prints)
    a, b = (np.array([pair[side] for pair in found], np.intp) for side in (0, 1))
    correlation = np.array([pair[2] for pair in found], np.float32)
    return _table(prints.ids, a, b, np.zeros(len(prints.ids), np.uint64), correlation)


def _pictures(prints: Fingerprints, bits: int, correlation: float) -> pd.DataFrame:
    if len(prints.ids) < 2:
        return no_pairs()
    alike = _alike(prints, bits)
    near = neighbours(prints.thumbnails)
    candidates = _joined(near, alike)
    detail, worst = _agreements(prints.thumbnails, candidates)
    small = prints.small[candidates.still] | prints.small[candidates.moving]
    by_hash = _codes(candidates.still, candidates.moving, len(prints.ids))
    is_alike = np.isin(by_hash, _codes(*alike, len(prints.ids)))
    keep = ((detail >= correlation) & (worst >= WORST_TILE)) | (small & is_alike)
    still, moving = candidates.still[keep], candidates.moving[keep]
    return _table(prints.ids, np.minimum(still, moving), np.maximum(still, moving), prints.hashes, detail[keep])


def hash_pairs(hashes: NDArray[np.uint64], bits: int) -> Iterator[_Matches]:
    """Yield (first, second) index arrays, first < second, of all 64-bit hashes at most `bits` bits apart."""
    n = len(hashes)
    for row in range(0, n, _ROWS):
        for column in range(row, n, _COLUMNS):
            distance = np.bitwise_count(hashes[row : row + _ROWS, None] ^ hashes[None, column : column + _COLUMNS])
            first, second = np.nonzero(distance <= bits)
            first, second = first + row, second + column
            upper = first < second  # the upper triangle: each pair once, none of an image with itself
            if upper.any():
                yield first[upper], second[upper]


def _alike(prints: Fingerprints, bits: int) -> _Matches:
    """The pairs by hash whose thumbnails hardly differ as they are."""
    n, side, _ = prints.thumbnails.shape
    units = prints.thumbnails.reshape(n, side // 2, 2, side // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    units = units.reshape(n, -1) - units.mean(axis=(1, 2)).reshape(n, 1)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    found = [(np.empty(0, np.intp), np.empty(0, np.intp))]
    for first, second in hash_pairs(prints.hashes, bits):
        for start in range(0, len(first), _CHUNK):
            a, b = first[start : start + _CHUNK], second[start : start + _CHUNK]
            same = np.einsum("nk,nk->n", units[a], units[b]) >= _SAME_GREYS
            found.append((a[same], b[same]))
    first, second = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second


def _joined(near: Candidates, alike: _Matches) -> Candidates:
    """The neighbours, and what the hash finds beyond them, upright as it is."""
    n = int(max((*alike[0], *alike[1], *near.still, *near.moving), default=0)) + 1
    new = ~np.isin(_codes(*alike, n), _codes(near.still, near.moving, n))
    count = int(new.sum())
    upright = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    return Candidates(
        np.concatenate([near.still, alike[0][new]]),
        np.concatenate([near.moving, alike[1][new]]),
        np.concatenate([near.maps, upright]),
        np.concatenate([near.inverted, np.zeros(count, bool)]),
    )


def _codes(a: Indices, b: Indices, n: int) -> Indices:
    """One number for each unordered pair."""
    return np.minimum(a, b) * n + np.maximum(a, b)


def _agreements(thumbnails: NDArray[np.uint8], candidates: Candidates) -> tuple[Floats, Floats]:
    found = [(np.empty(0, np.float32), np.empty(0, np.float32))]
    for start in range(0, len(candidates.still), _CHUNK):
        rows = slice(start, start + _CHUNK)
        still, moving = (thumbnails[index[rows]].astype(np.float32) for index in (candidates.still, candidates.moving))
        moving[candidates.inverted[rows]] *= -1
        result = agreement(still, moving, candidates.maps[rows].copy())
        found.append((result.detail, result.worst))
    detail, worst = (np.concatenate(column) for column in zip(*found, strict=True))
    return detail, worst


def _table(ids: list[str], a: Indices, b: Indices, hashes: NDArray[np.uint64], correlation: Floats) -> pd.DataFrame:
    names = np.asarray(ids, dtype=object)
    frame = pd.DataFrame(
        {
            "id_a": pd.Series(names[a], dtype="str"),
            "id_b": pd.Series(names[b], dtype="str"),
            "bits": np.bitwise_count(hashes[a] ^ hashes[b]).astype(np.int64),
            "correlation": correlation.astype(np.float64).round(4),
        }
    )
    return frame.sort_values(["id_a", "id_b"], ignore_index=True)
