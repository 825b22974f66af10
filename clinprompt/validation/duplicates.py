"""Images that occur twice: byte-identical files, and near-duplicates by perceptual hash and thumbnail correlation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinprompt.validation.summary import Summary

_ROWS, _COLUMNS, _CHUNK = 1024, 8192, 4096
_PAIR_COLUMNS = ["path_a", "path_b", "split_a", "split_b", "kind", "bits", "correlation", "same_label"]


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset.

    Attributes:
        near: one row per pair of different files that look the same: id_a, id_b (id_a < id_b), bits, correlation.
        pairs: near-duplicates and byte-identical files as pairs of paths, for people to read (`pairs.parquet`). To keep
            it short, a file is paired with the first file of each split among its twins, not with every one of them.
    """

    near: pd.DataFrame
    pairs: pd.DataFrame


def find_duplicates(manifest: pd.DataFrame, summary: Summary, bits: int, correlation: float) -> Duplicates:
    """Find the exact and the near-duplicates among the manifest's rows."""
    near = near_duplicates(summary, bits, correlation)
    return Duplicates(near, path_pairs(manifest, near))


def near_duplicates(summary: Summary, bits: int, correlation: float) -> pd.DataFrame:
    """Pairs of distinct, undamaged images whose hashes differ in at most `bits` bits and whose thumbnails correlate.

    The search is exhaustive: hashes are compared block by block, about 10^9 pairs per three seconds.
    """
    ids, hashes = np.asarray(summary.ids), summary.hashes
    units = _unit_thumbnails(summary.thumbnails)
    matches: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for first, second, distance in _pairs_within(hashes, bits):
        for start in range(0, len(first), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            a, b, d = first[chunk], second[chunk], distance[chunk]
            r = np.einsum("nk,nk->n", units[a], units[b])
            keep = r >= correlation
            matches.append((a[keep], b[keep], d[keep], r[keep]))
    first, second, distance, r = (
        (np.concatenate(column) for column in zip(*matches, strict=True)) if matches else _NO_MATCHES
    )
    frame = pd.DataFrame(
        {
            "id_a": pd.Series(ids[first], dtype="str"),
            "id_b": pd.Series(ids[second], dtype="str"),
            "bits": distance.astype(np.int64),
            "correlation": r.astype(np.float64).round(6),
        }
    )
    return frame.sort_values(["id_a", "id_b"], ignore_index=True)


def path_pairs(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """Exact and near pairs as paths, with splits and whether the labels agree; sorted by the two paths."""
    rows = manifest[["id", "path", "split", "label"]]
    firsts = rows.drop_duplicates(["id", "split"])
    exact = rows.merge(firsts, on="id", suffixes=("_a", "_b"))
    exact = exact[exact["path_a"] != exact["path_b"]].assign(kind="exact", bits=0, correlation=1.0)
    similar = (
        near.merge(firsts.add_suffix("_a"), on="id_a").merge(firsts.add_suffix("_b"), on="id_b").assign(kind="near")
    )
    pairs = pd.concat([_ordered(exact), _ordered(similar)], ignore_index=True)
    pairs = pairs.assign(same_label=pairs["label_a"] == pairs["label_b"]).drop_duplicates(["path_a", "path_b"])
    return pairs.sort_values(["path_a", "path_b"], ignore_index=True)[_PAIR_COLUMNS]


def _ordered(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with a and b exchanged where path_a comes after path_b."""
    swap = pairs["path_a"] > pairs["path_b"]
    ordered = pairs.copy()
    for column in ("path", "split", "label"):
        a, b = pairs[f"{column}_a"], pairs[f"{column}_b"]
        ordered[f"{column}_a"], ordered[f"{column}_b"] = a.where(~swap, b), b.where(~swap, a)
    return ordered


def _pairs_within(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (first, second, distance) index arrays, first < second, of 64-bit hashes at most `bits` bits apart."""
    n = len(hashes)
    for row in range(0, n, _ROWS):
        for column in range(row, n, _COLUMNS):
            distance = np.bitwise_count(hashes[row : row + _ROWS, None] ^ hashes[None, column : column + _COLUMNS])
            first, second = np.nonzero(distance <= bits)
            bits_apart = distance[first, second]
            first, second = first + row, second + column
            upper = first < second  # the upper triangle: each pair once, none of an image with itself
            if upper.any():
                yield first[upper], second[upper], bits_apart[upper]


def _unit_thumbnails(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails [n,s,s] as rows [n,s*s] of zero mean and length one, so that a product of two is their correlation."""
    flat = thumbnails.reshape(len(thumbnails), np.prod(thumbnails.shape[1:])).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)


_NO_MATCHES = (np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.uint8), np.empty(0, np.float32))
