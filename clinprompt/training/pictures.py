"""Images at their own sizes, for augmentations that crop before they resize."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clinprompt.data.codecs import Intensity, decode_image
from clinprompt.data.dataset import Item, read_image
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.errors import InputCorrupt

KEPT = 1 << 30  # bytes of decoded images; what is beyond is decoded each time


@dataclass(frozen=True)
class Pictures:
    """The images of some files.

    Attributes:
        items: (SHA-256 of the file's bytes, file) of each image.
    """

    items: Sequence[Item]
    preprocessing: Preprocessing
    intensity: Intensity
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def picture(self, row: int) -> Tensor:
        """An image as uint8 [3, H, W].

        Raises:
            InputMissing, InputCorrupt: it is missing, does not have its id's digest, or can't be decoded.
        """
        values = self._kept.get(row)
        if values is None:
            values = self._decoded(self.items[row])
            if sum(kept.nbytes for kept in self._kept.values()) + values.nbytes <= KEPT:
                self._kept[row] = values
        return torch.from_numpy(values).permute(2, 0, 1)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Float32 pixels [3, S, S] as the backbone expects them, of uint8 ones."""
        mean, std = (torch.tensor(part)[:, None, None] for part in (self.preprocessing.mean, self.preprocessing.std))
        return (pixels.float() / 255 - mean) / std

    def _decoded(self, item: Item) -> np.ndarray:
        data = read_image(item)
        try:
            return decode_image(data, self.intensity).picture().copy()
        except ValueError as error:
            raise InputCorrupt(
                f"The image {item[1]} can't be decoded: {error}. Run the validate stage again."
            ) from None
