"""From an upright image of 8 bits to the numbers that a backbone takes. Served models carry this code."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from clinprompt.data.codecs.base import VOLUME, DecodedImage, check_size

if TYPE_CHECKING:
    from clinprompt.data.volumes import VolumePreprocessing


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone expects of its input; gives the same numbers as open_clip's evaluation transform.

    Attributes:
        size: side of the square input, in pixels.
        mean, std: per channel, of values in 0…1.
        interpolation: "bicubic" or "bilinear".
        resize_mode: "shortest" (shorter side to `size`, then the centre is cut out) or "squash".
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation must be 'bicubic' or 'bilinear', found {self.interpolation!r}")
        if self.resize_mode not in ("shortest", "squash"):
            raise ValueError(f"resize_mode must be 'shortest' or 'squash', found {self.resize_mode!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what `apply` gives."""
        return (3, self.size, self.size)

    def apply(self, image: DecodedImage | np.ndarray) -> np.ndarray:
        """Resize, crop and normalise a decoded image, or uint8 [H, W, 3], to float32 [3, size, size].

        Raises:
            ValueError: it is a volume, or has a size or shape that resizing would make huge: see
                `codecs.base.check_size`.
        """
        if isinstance(image, DecodedImage) and len(image.shape) != 2:
            raise ValueError("it is a volume, and the backbone reads pictures")
        pixels = image.picture() if isinstance(image, DecodedImage) else image
        check_size(pixels.shape[1], pixels.shape[0])
        picture = self._resize(Image.fromarray(pixels))
        values = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)).astype(np.float32)
        values /= np.float32(255)
        values -= np.asarray(self.mean, np.float32)[:, None, None]
        values /= np.asarray(self.std, np.float32)[:, None, None]
        return values

    def _resize(self, picture: Image.Image) -> Image.Image:
        how = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        size = self.size
        if self.resize_mode == "squash":
            return picture.resize((size, size), how)
        short, long = sorted(picture.size)
        other = int(size * long / short)
        width, height = (size, other) if picture.width <= picture.height else (other, size)
        if picture.size != (width, height):
            picture = picture.resize((width, height), how)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return picture.crop((left, top, left + size, top + size))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`."""
        mean, std = (tuple(float(v) for v in values[key]) for key in ("mean", "std"))
        return cls(**(values | {"mean": mean, "std": std}))


AnyPreprocessing: TypeAlias = "Preprocessing | VolumePreprocessing"


def preprocessing_of(values: dict[str, Any]) -> AnyPreprocessing:
    """The preprocessing of pictures or of volumes whose `to_dict` gave these values."""
    if values.get("kind") != VOLUME:
        return Preprocessing.from_dict(values)
    from clinprompt.data.volumes import VolumePreprocessing  # models of pictures are served without it

    return VolumePreprocessing.from_dict(values)
