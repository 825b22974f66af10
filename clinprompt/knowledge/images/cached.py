"""The cached features of a dataset's images by class, and texts in the same space."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.data.manifest import read_manifest
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.features.store import FeatureStore

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a split: unit features float32 [B, e], and of each the number of its class."""

    features: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def means(self) -> np.ndarray:
        """The mean of each class's unit features [C, e]: a text's cosine with it is its mean cosine with the images."""
        return np.stack([self.features[self.labels == k].mean(0) for k in range(len(self.classes))])


@dataclass(frozen=True, eq=False)
class CachedSpace:
    """A folder of cached features with the backbone that made them, and the manifest of the images."""

    store: FeatureStore
    manifest: Path
    backbone: Backbone

    @classmethod
    def open(cls, features: Path, manifest: Path | None = None, backbone: Path | None = None) -> "CachedSpace":
        """Open a folder of features.

        Args:
            manifest: by default `validate/manifest.parquet` beside the folder, as runs have it.
            backbone: the folder of a backbone of one's own; by default the name that the features tell is loaded.

        Raises:
            InputMissing: the features or the backbone are not there.
            InputCorrupt: they can't be read, or the backbone is not the one that made them.
        """
        store = FeatureStore.open(features)
        name = str(store.identity["backbone"]["name"])
        loaded = load_backbone(name, backbone)
        if loaded.digest != store.backbone_digest:
            raise InputCorrupt(
                f"{features} holds features of the backbone {store.backbone_digest[:12]}, but {name} is "
                f"{loaded.digest[:12]}; run the cache stage again (dvc repro), or name its folder."
            )
        return cls(store, manifest or features.parent / "validate" / "manifest.parquet", loaded)

    def images(self, split: str, classes: Sequence[str]) -> Images:
        """The images of one split.

        Raises:
            InputMissing, InputCorrupt: the manifest is not there or can't be read, or an image has no features.
            DataRejected: a class has no image in the split.
        """
        rows = read_manifest(self.manifest)
        rows = rows[(rows["split"] == split) & rows["label"].isin(classes)].drop_duplicates("id").sort_values("id")
        for label in classes:
            if not (rows["label"] == label).any():
                raise DataRejected(f"{self.manifest}: the class {label!r} has no image in the split {split}.")
        features = _unit(self.store.get(rows["id"].tolist()))
        labels = np.array([list(classes).index(label) for label in rows["label"]])
        return Images(features, labels, tuple(classes))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit features of texts, float32 [N, e]; those of like length share a batch."""
        vectors = np.zeros((len(texts), self.backbone.embed_dim), np.float32)
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            ids = self.backbone.tokenize([texts[i] for i in batch]).to(self.backbone.device)
            with torch.no_grad():
                vectors[batch] = self.backbone.text.encode_ids(ids).float().cpu().numpy()
        return _unit(vectors)


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = rows / np.where(lengths > 0, lengths, 1)
    return unit
