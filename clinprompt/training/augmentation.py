"""Pixels that look different in each epoch, and can be drawn again after an interruption."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from clinprompt.prompting.batches import Batch, Examples

Augmentation = Literal["none", "crop", "crop_flip"]
Prepare = Callable[[Tensor], Tensor]

_AREA, _ASPECT = [0.08, 1.0], [3 / 4, 4 / 3]  # as in the papers, and in torchvision by default


@dataclass(frozen=True)
class CropFlip(Examples):
    """Preprocessed pixels [n, 3, S, S] as `inputs`; a batch holds what `prepare` makes of random crops of them.

    A crop has 8 % to 100 % of the area and a ratio of sides of 3:4 to 4:3, and is resized to the images' size; with
    `flips`, half of them are flipped left to right. What is drawn depends on the seed, the epoch and the image's row
    alone.
    """

    prepare: Prepare
    drawn: tuple[int, int] = (0, 0)  # seed and epoch
    flips: bool = True

    def at(self, seed: int, epoch: int) -> Examples:
        """The same images as this epoch sees them."""
        seen: Any = super().at(seed, epoch)  # of this class
        return replace(seen, drawn=(seed, epoch))

    @torch.no_grad()
    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The examples at the given rows, drawn and prepared."""
        numbers, device = np.arange(len(self))[rows].tolist(), self.labels.device
        pixels = [crop_flip(self.inputs[row].to(device), [*self.drawn, row], flips=self.flips) for row in numbers]
        return self.with_records(self.prepare(torch.stack(pixels)), torch.tensor(numbers))


def crop_flip(pixels: Tensor, key: list[int], *, flips: bool = True) -> Tensor:
    """A random crop of an image [3, S, S], resized back (bicubic), maybe flipped; `key` decides what is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng(key).integers(2**63)))
        top, left, height, width = v2.RandomResizedCrop.get_params(pixels, _AREA, _ASPECT)
        flipped = bool(torch.rand(()) < 0.5)
    size = list(pixels.shape[-2:])
    crop: Tensor = v2.functional.resized_crop(
        pixels, top, left, height, width, size, interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return v2.functional.horizontal_flip(crop) if flips and flipped else crop
