"""Bring a feature store up to date: compute missing features, reuse valid ones, drop those no longer asked for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clinprompt.backbones.device import computes_bfloat16
from clinprompt.backbones.load import Backbone
from clinprompt.data.codecs import Intensity
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.features.checkpoint import FLUSH_SECONDS, StoreCheckpoint
from clinprompt.features.extract import extract
from clinprompt.features.store import FeatureStore, write_store
from clinprompt.files import sha256_bytes, to_json
from clinprompt.progress import progress
from clinprompt.sources import closure, digest

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]

# Libraries whose versions can change a feature's last bits.
_LIBRARIES = ("numpy", "open_clip_torch", "pillow", "tifffile", "timm", "torch")


@dataclass(frozen=True)
class Update:
    """How many images the store holds now, how many of them were computed or reused, and how many were removed."""

    images: int
    computed: int
    reused: int
    removed: int


def update_store(
    path: Path,
    backbone: Backbone,
    images: Mapping[str, Path],
    *,
    intensity: Intensity,
    batch_size: int,
    workers: int,
    precision: str,
    flush_seconds: float = FLUSH_SECONDS,
) -> Update:
    """Make the store at `path` hold exactly the features of `images`, computed with these settings.

    Rows of the existing store, or of an interrupted run's checkpoint, are reused when their digests match and they were
    computed with the same settings; the result's bytes do not depend on it. The new store replaces the old one in one
    step; files of the old one are never written to.

    Args:
        images: file by id, the SHA-256 of its bytes.
        flush_seconds: time between checkpoints: about how much work a kill may cost.

    Raises: as `extract`.
    """
    if precision != "float32" and not computes_bfloat16(backbone.device):
        log.warning("%s needs a GPU, or a CPU with instructions for it; computing in float32.", precision)
        precision = "float32"
    identity = identity_of(backbone, intensity, precision, batch_size)
    _recover(path)
    ids = sorted(images)
    features = np.empty((len(ids), backbone.embed_dim), np.float32)
    missing = np.ones(len(ids), bool)
    old = _compatible_store(path, identity)
    intact = old is not None and _reuse(old, ids, features, missing)
    removed = 0 if old is None else len(set(old.ids.tolist()) - {i.encode() for i in ids})
    changes = bool(missing.any()) or removed > 0 or not intact
    with StoreCheckpoint(path, identity, flush_seconds) as checkpoint:
        _resume(checkpoint, ids, features, missing)
        row_of = {ids[i]: i for i in np.flatnonzero(missing)}
        to_compute = {digest: images[digest] for digest in row_of}
        batches = extract(
            backbone, to_compute, intensity=intensity, batch_size=batch_size, workers=workers, precision=precision
        )
        for batch_ids, rows in progress(batches, "features", total=-(-len(to_compute) // batch_size), unit="batch"):
            features[[row_of[digest] for digest in batch_ids]] = rows
            checkpoint.add(batch_ids, rows)
        if changes:
            write_store(path, identity, ids, features)
        checkpoint.clear()
    return Update(images=len(ids), computed=len(to_compute), reused=len(ids) - len(to_compute), removed=removed)


def identity_of(backbone: Backbone, intensity: Intensity, precision: str, batch_size: int) -> dict[str, Any]:
    """What a feature depends on besides the image: equal identities give equal bits on the same machine."""
    return {
        "backbone": {"name": backbone.name, "digest": backbone.digest},
        "preprocessing": backbone.preprocessing.to_dict(),
        "intensity": intensity,
        "precision": precision,
        "batch_size": batch_size,
        "device": backbone.device.type,
        "decoder": _decoder(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _decoder() -> str:
    """Digest of the code that turns an image file into a backbone's input."""
    files = closure(["clinprompt.data.codecs", "clinprompt.data.preprocessing"], _ROOT)
    return sha256_bytes(to_json({name: digest(file) for name, file in files.items()}).encode())


def _compatible_store(path: Path, identity: dict[str, Any]) -> FeatureStore | None:
    """The store at `path` where it is readable and was computed with this identity."""
    try:
        store = FeatureStore.open(path, verify=False)
    except InputMissing:
        return None
    except InputCorrupt as error:
        log.warning("%s Computing all features again.", error)
        return None
    changed = [key for key in identity if store.identity.get(key) != identity[key]]
    if changed:
        log.info("%s was computed with another %s: computing all features again.", path, ", ".join(changed))
        return None
    return store


def _reuse(old: FeatureStore, ids: list[str], features: np.ndarray, missing: np.ndarray) -> bool:
    """Copy the rows of the old store's intact shards; return whether all shards are intact."""
    wanted = np.array(ids, dtype="S64")
    intact = True
    for shard in old.shards:
        try:
            old.verify(shard)
        except InputCorrupt as error:
            log.warning("%s Computing its features again.", error)
            intact = False
            continue
        rows = np.flatnonzero(np.isin(wanted, old.ids_of(shard)))
        features[rows] = old.get([ids[i] for i in rows])
        missing[rows] = False
    return intact


def _resume(checkpoint: StoreCheckpoint, ids: list[str], features: np.ndarray, missing: np.ndarray) -> None:
    """Copy the rows of an interrupted run's checkpoint."""
    saved = checkpoint.read() if missing.any() else {}
    for i in np.flatnonzero(missing):
        if ids[i] in saved:
            features[i], missing[i] = saved[ids[i]], False


def _recover(path: Path) -> None:
    """Put the old store back after a run that was killed between the two renames of its replacement."""
    set_aside = path.with_name(f".{path.name}.old")
    if set_aside.is_dir() and not path.exists():
        set_aside.rename(path)
