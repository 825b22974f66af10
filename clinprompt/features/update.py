"""Bring a feature store up to date: compute what is missing, keep what is there, drop what is no longer asked for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clinprompt.backbones import Backbone
from clinprompt.data.codecs import Intensity
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.features.extract import extract
from clinprompt.features.parts import FLUSH_SECONDS, Parts
from clinprompt.features.store import FeatureStore, write_store
from clinprompt.files import sha256_bytes, to_json
from clinprompt.progress import progress
from clinprompt.sources import closure, digest

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]

# Libraries that have a say in a feature's last bits.
_LIBRARIES = ("numpy", "open_clip_torch", "pillow", "tifffile", "timm", "torch")


@dataclass(frozen=True)
class Update:
    """How many rows the store holds now, and what was done for them."""

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
    """Make the store at `path` hold exactly the features of `images`, computed as asked.

    Rows that the store, or an interrupted run, holds already are taken over when they verify and were computed with
    the same settings. The result's bytes do not depend on that history. The new store takes the old one's place in
    one step; files of the old one are never written to.

    Args:
        images: file by id, the SHA-256 of its bytes.
        flush_seconds: how much work a kill may cost, about.

    Raises: as `extract`.
    """
    if backbone.device.type != "cuda" and precision != "float32":
        log.warning("%s needs a GPU; computing in float32.", precision)
        precision = "float32"
    identity = identity_of(backbone, intensity, precision, batch_size)
    _recover(path)
    ids = sorted(images)
    features = np.empty((len(ids), backbone.embed_dim), np.float32)
    missing = np.ones(len(ids), bool)
    old = _readable(path, identity)
    intact = old is not None and _take_over(old, ids, features, missing)
    stale = 0 if old is None else len(set(old.ids.tolist()) - {i.encode() for i in ids})
    changes = bool(missing.any()) or stale > 0 or not intact
    with Parts(path, identity, flush_seconds) as parts:
        _take_parts(parts, ids, features, missing)
        place = {ids[i]: i for i in np.flatnonzero(missing)}
        todo = {digest: images[digest] for digest in place}
        batches = extract(
            backbone, todo, intensity=intensity, batch_size=batch_size, workers=workers, precision=precision
        )
        for done, rows in progress(batches, "features", total=-(-len(todo) // batch_size), unit="batch"):
            features[[place[digest] for digest in done]] = rows
            parts.add(done, rows)
        if changes:
            write_store(path, identity, ids, features)
        parts.clear()
    return Update(images=len(ids), computed=len(todo), reused=len(ids) - len(todo), removed=stale)


def identity_of(backbone: Backbone, intensity: Intensity, precision: str, batch_size: int) -> dict[str, Any]:
    """All that a feature depends on, besides the image: equal identities give equal bits on the same machine."""
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


def _readable(path: Path, identity: dict[str, Any]) -> FeatureStore | None:
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


def _take_over(old: FeatureStore, ids: list[str], features: np.ndarray, missing: np.ndarray) -> bool:
    """Copy the rows of the shards that verify; whether all of them did."""
    wanted = np.array(ids, dtype="S64")
    intact = True
    for shard in old.shards:
        try:
            old.verify(shard)
        except InputCorrupt as error:
            log.warning("%s Computing its features again.", error)
            intact = False
            continue
        at = np.flatnonzero(np.isin(wanted, old.ids_of(shard)))
        features[at] = old.get([ids[i] for i in at])
        missing[at] = False
    return intact


def _take_parts(parts: Parts, ids: list[str], features: np.ndarray, missing: np.ndarray) -> None:
    """Copy the rows that an interrupted run has left."""
    left = parts.read() if missing.any() else {}
    for i in np.flatnonzero(missing):
        if ids[i] in left:
            features[i], missing[i] = left[ids[i]], False


def _recover(path: Path) -> None:
    """A run that was killed between the two renames of a swap has left the old store under its other name."""
    aside = path.with_name(f".{path.name}.old")
    if aside.is_dir() and not path.exists():
        aside.rename(path)
