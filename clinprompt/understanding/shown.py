"""Preprocessed images as pictures to look at, and maps of patches laid on them; of volumes three planes."""

import numpy as np
import torch
import torch.nn.functional as F

from clinprompt.data.codecs.base import three_planes
from clinprompt.data.preprocessing import AnyPreprocessing, Preprocessing
from clinprompt.evaluation.metrics import Floats


def as_seen(pixels: np.ndarray, preprocessing: AnyPreprocessing) -> np.ndarray:
    """Preprocessed pixels [n, 3, S, S] as pictures [n, S, S, 3], volumes [n, 1, D, H, W] as [n, D, H, W]; 0…1."""
    if isinstance(preprocessing, Preprocessing):
        images = pixels.transpose(0, 2, 3, 1) * np.array(preprocessing.std) + np.array(preprocessing.mean)
        return np.clip(images, 0, 1)
    volumes = pixels[:, 0]
    low, high = (bound(axis=(1, 2, 3), keepdims=True) for bound in (volumes.min, volumes.max))
    return (volumes - low) / np.maximum(high - low, 1e-6)


def shown(image: np.ndarray, maps: tuple[Floats, Floats]) -> tuple[Floats, tuple[Floats, Floats]]:
    """A picture [H, W, 3] and its maps as they are; of a volume [D, H, W] and maps of its patches the three planes
    through the brightest place of the second map, the image as [h, w, 3] and the maps as [h, w]."""
    if image.shape[-1] == 3 and maps[0].ndim == 2:
        return image, maps
    first, second = (enlarged(values, image.shape) for values in maps)
    at = np.unravel_index(int(second.argmax()), image.shape) if second.max() > 0 else None
    place = None if at is None else tuple(int(index) for index in at)
    planes = three_planes(image, at=place)
    picture: Floats = np.repeat(planes[..., None], 3, axis=-1)
    return picture, (three_planes(first, at=place), three_planes(second, at=place))


def enlarged(values: Floats, shape: tuple[int, ...]) -> Floats:
    """Numbers of patches on the grid of voxels, linear between the patches' centres."""
    patches = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    large: Floats = F.interpolate(patches, size=list(shape), mode="trilinear", align_corners=False)[0, 0].numpy()
    return large
