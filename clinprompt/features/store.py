"""The feature store: a folder of frozen image features, addressed by what they were computed from.

    store.json             format, identity, dim, count, SHA-256 of the files below
    index.parquet          id, shard, row; sorted by id
    shard-00000.safetensors  "features": float32 [n, e], projected, not normalised; rows sorted by id

A row's shard follows from its id and the number of rows alone, so that the files' bytes depend on which images are in
the store and on how features are computed, never on the order in which images arrived.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import atomic, read_json, sha256_file, write_json

FORMAT = 1
ROWS_PER_SHARD = 4096
_MAX_HEADER = 1 << 16
_INDEX = "index.parquet"
_STORE = "store.json"
_AGAIN = "Run the cache stage again (dvc repro)"


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Read access to a store's rows, memory-mapped.

    Attributes:
        identity: what the features were computed with: backbone, preprocessing, intensity, precision, …
        dim: width e of a row.
        ids: SHA-256 of the images in hex, ascending, as bytes [n].
    """

    path: Path
    identity: dict[str, Any]
    dim: int
    ids: np.ndarray
    _shard: np.ndarray
    _row: np.ndarray
    _digests: dict[str, str]

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> "FeatureStore":
        """Open a store; with `verify`, read every file once and compare its SHA-256 with the recorded one.

        Raises:
            InputMissing: there is no store at `path`.
            InputCorrupt: a file, named in the message, is missing, malformed, or has the wrong digest.
        """
        path = Path(path)
        description = read_json(path / _STORE)
        try:
            if description["format"] != FORMAT:
                raise InputCorrupt(f"{path / _STORE}: format {description['format']} is not {FORMAT}. {_AGAIN}.")
            digests, count, dim = dict(description["files"]), int(description["count"]), int(description["dim"])
            identity = dict(description["identity"])
        except (KeyError, TypeError, ValueError):
            raise InputCorrupt(f"{path / _STORE} is not the description of a feature store. {_AGAIN}.") from None
        _check_file(path / _INDEX, digests.get(_INDEX))
        table = pq.read_table(path / _INDEX)
        store = cls(
            path=path,
            identity=identity,
            dim=dim,
            ids=np.array(table["id"].to_pylist(), dtype="S64"),
            _shard=table["shard"].to_numpy(),
            _row=table["row"].to_numpy(),
            _digests=digests,
        )
        if len(store.ids) != count:
            raise InputCorrupt(f"{path / _INDEX} lists {len(store.ids)} images, {_STORE} {count}. {_AGAIN}.")
        if verify:
            for shard in store.shards:
                store.verify(shard)
        return store

    @property
    def backbone_digest(self) -> str:
        """Digest of the backbone that computed the features."""
        return str(self.identity["backbone"]["digest"])

    @property
    def shards(self) -> list[int]:
        """The numbers of the shards that hold rows, ascending."""
        return [int(number) for number in np.unique(self._shard)]

    def verify(self, shard: int) -> None:
        """Compare a shard's bytes with the digest in `store.json`.

        Raises:
            InputCorrupt: they differ, or the file is missing.
        """
        name = shard_name(shard)
        _check_file(self.path / name, self._digests.get(name))

    def ids_of(self, shard: int) -> np.ndarray:
        """The ids of a shard's rows, in their order."""
        return self.ids[self._shard == shard]

    def get(self, ids: Sequence[str]) -> np.ndarray:
        """Features float32 [n, e] of the images `ids`, in their order; an id may be listed twice.

        Raises:
            InputMissing: the store holds no features of one of them.
        """
        wanted = np.asarray(ids, dtype="S64")
        features = np.empty((len(wanted), self.dim), np.float32)
        if not len(wanted):
            return features
        positions = np.searchsorted(self.ids, wanted)
        present = positions < len(self.ids)
        present[present] = self.ids[positions[present]] == wanted[present]
        if not present.all():
            raise InputMissing(f"{self.path} has no features of the image {ids[int(np.argmin(present))]}. {_AGAIN}.")
        shard_numbers = self._shard[positions]
        for shard in np.unique(shard_numbers):
            in_shard = shard_numbers == shard
            features[in_shard] = self._maps[int(shard)][self._row[positions[in_shard]]]
        return features

    @cached_property
    def _maps(self) -> dict[int, np.ndarray]:
        return {number: _map(self.path / shard_name(number), self.dim) for number in self.shards}


def write_store(path: Path, identity: dict[str, Any], ids: Sequence[str], features: np.ndarray) -> None:
    """Write a store beside `path` and put it in its place when it is complete.

    Args:
        ids: SHA-256 in hex, each once, ascending.
        features: float32 [n, e], row i belonging to ids[i].
    """
    shards, rows = assign_shards(ids)
    with atomic(path) as partial:
        partial.mkdir()
        for shard, start, stop in _runs(shards):
            save_file({"features": np.ascontiguousarray(features[start:stop])}, partial / shard_name(shard))
        pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "shard": shards, "row": rows}), partial / _INDEX)
        files = {file.name: sha256_file(file) for file in partial.iterdir()}
        description = {"format": FORMAT, "identity": identity, "dim": int(features.shape[1]), "count": len(ids)}
        write_json(partial / _STORE, description | {"files": files})


def assign_shards(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Shard and row of each of the ascending `ids`: the shard is the id's leading bits, more of them for more ids."""
    bits = max(0, (len(ids) - 1) // ROWS_PER_SHARD).bit_length()
    shard = np.array([int(i[:8], 16) >> (32 - bits) for i in ids], dtype=np.int32)
    row = np.empty(len(ids), np.int32)
    for _, start, stop in _runs(shard):
        row[start:stop] = np.arange(stop - start)
    return shard, row


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def _runs(shard: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(shard, start, stop) of each run of equal numbers in an ascending array."""
    numbers, starts = np.unique(shard, return_index=True)
    stops = np.append(starts, len(shard))[1:]
    yield from zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True)


def _check_file(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise InputCorrupt(f"{path} is missing from the feature store. {_AGAIN}.")
    actual = sha256_file(path)
    if actual != expected:
        raise InputCorrupt(f"{path} is damaged: expected SHA-256 {expected}, found {actual}. {_AGAIN}.")


def _map(path: Path, dim: int) -> np.ndarray:
    """The features of a shard without reading them: a safetensors file is a length, a JSON header and the bytes."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _MAX_HEADER)))["features"]
        if header["dtype"] != "F32" or header["shape"][1] != dim:
            raise ValueError
        return np.memmap(path, np.float32, "r", 8 + length + header["data_offsets"][0], tuple(header["shape"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        raise InputCorrupt(f"{path} does not hold float32 features of width {dim}. {_AGAIN}.") from None
