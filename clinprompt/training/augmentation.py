"""Pixels that look different in each epoch, and can be drawn again after an interruption."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinprompt.params import Augmentation
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.training.pictures import Pictures

Prepare = Callable[[Tensor], Tensor]

_AREA, _ASPECT = [0.08, 1.0], [3 / 4, 4 / 3]  # as in the papers, and in torchvision by default


@dataclass(frozen=True)
class CropFlip(Examples):
    """Images as `inputs` or as `pictures`; a batch holds what `prepare` makes of them as an epoch sees them.

    What is drawn depends on the seed, the epoch and the image's row alone. See `augmented` for the augmentations.

    Attributes:
        inputs: preprocessed pixels [n, 3, S, S]; only their number counts where there are pictures.
        pictures: the images at their own sizes, so that a crop is of the image, and resized once.
    """

    prepare: Prepare
    drawn: tuple[int, int] = (0, 0)  # seed and epoch
    augmentation: Augmentation = "crop_flip"
    pictures: Pictures | None = None

    def at(self, seed: int, epoch: int) -> Examples:
        """The same images as this epoch sees them."""
        seen: Any = super().at(seed, epoch)  # of this class
        return replace(seen, drawn=(seed, epoch))

    @torch.no_grad()
    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The examples at the given rows, drawn and prepared."""
        numbers = np.arange(len(self))[rows].tolist()
        pixels = torch.stack([self._drawn(row) for row in numbers])
        return self.with_records(self.prepare(pixels.to(self.labels.device)), torch.tensor(numbers))

    def _drawn(self, row: int) -> Tensor:
        key = [*self.drawn, row]
        if self.pictures is None:
            return augmented(self.inputs[row].to(self.labels.device), key, self.augmentation)
        size = self.pictures.preprocessing.size
        return self.pictures.normalised(augmented(self.pictures.picture(row), key, self.augmentation, size))


def augmented(pixels: Tensor, key: list[int], augmentation: Augmentation, size: int | None = None) -> Tensor:
    """An image [3, H, W] as it is drawn, [3, size, size]; `key` decides what.

    - `crop`: a part of 8 % to 100 % of its area with sides of 3:4 to 4:3, as BiomedCoOp and Biomed-DPT train
    - `crop_flip`: the same, half of them mirrored, as CoOp, MaPLe and CILMP do
    - `fundus`: DVPT's, for images that have no upright: mirrored both ways, parts of 87 % of the area and more,
      brightness, contrast, saturation and hue changed, turned by any angle and moved by up to a tenth

    Args:
        size: the side of the result; None: the image's, which is square.
    """
    if augmentation == "fundus":
        return _fundus(pixels, key, size or pixels.shape[-1])
    return crop_flip(pixels, key, flips=augmentation == "crop_flip", size=size)


def crop_flip(pixels: Tensor, key: list[int], *, flips: bool = True, size: int | None = None) -> Tensor:
    """A random crop of an image [3, H, W], resized (bicubic), maybe flipped; `key` decides what is drawn."""
    from torchvision.transforms import InterpolationMode, v2  # seconds, and most trainings augment nothing

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(key))
        top, left, height, width = v2.RandomResizedCrop.get_params(pixels, _AREA, _ASPECT)
        flipped = bool(torch.rand(()) < 0.5)
    side = list(pixels.shape[-2:]) if size is None else [size, size]
    crop: Tensor = v2.functional.resized_crop(
        pixels, top, left, height, width, side, interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return v2.functional.horizontal_flip(crop) if flips and flipped else crop


def _fundus(pixels: Tensor, key: list[int], size: int) -> Tensor:
    from torchvision.transforms import v2

    drawing = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomResizedCrop(size, scale=(0.87, 1.15), ratio=(0.7, 1.3), antialias=True),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.1, hue=0.1),
            v2.RandomRotation((-180, 180)),
            v2.RandomAffine(degrees=0, translate=(0.1, 0.1)),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(key))
        drawn: Tensor = drawing(pixels)
    return drawn


def _seed(key: list[int]) -> int:
    return int(np.random.default_rng(key).integers(2**63))
