"""Checkpoints of a feature store that is being computed, so that a killed run loses only a few seconds of work."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from clinprompt.files import remove, sha256_bytes, to_json

FLUSH_SECONDS = 10.0


class StoreCheckpoint:
    """Files of finished rows in a hidden folder beside a store.

    A file's name is the SHA-256 of its bytes, its folder's name that of the store's identity, so that rows that are
    damaged or were computed with other settings are never reused. Rows are written every `flush_seconds`, and when the
    `with` block ends with an error.
    """

    def __init__(self, store: Path, identity: dict[str, Any], flush_seconds: float = FLUSH_SECONDS) -> None:
        self._root = store.with_name(f".{store.name}.parts")
        self._folder = self._root / sha256_bytes(to_json(identity).encode())[:16]
        self._flush_seconds = flush_seconds
        self._pending: list[tuple[list[str], np.ndarray]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> "StoreCheckpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._flush()

    def read(self) -> dict[str, np.ndarray]:
        """The rows that an earlier run left, by id; what does not verify is ignored."""
        rows: dict[str, np.ndarray] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            data = path.read_bytes()
            if sha256_bytes(data) == path.stem:
                tensors = load(data)
                ids = [bytes(row).hex() for row in tensors["ids"]]
                rows.update(zip(ids, tensors["features"], strict=True))
        return rows

    def add(self, ids: list[str], features: np.ndarray) -> None:
        """Add finished rows: ids (SHA-256 in hex) and features float32 [n, e]."""
        self._pending.append((ids, features))
        if time.monotonic() - self._flushed >= self._flush_seconds:
            self._flush()

    def clear(self) -> None:
        """Remove what was written, for this and any other identity."""
        remove(self._root)

    def _flush(self) -> None:
        if self._pending:
            ids = np.frombuffer(bytes.fromhex("".join(i for batch, _ in self._pending for i in batch)), np.uint8)
            features = np.concatenate([batch for _, batch in self._pending])
            data = save({"ids": ids.reshape(-1, 32), "features": features})
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{sha256_bytes(data)}.safetensors"
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_bytes(data)
            unfinished.replace(path)
            self._pending = []
        self._flushed = time.monotonic()
