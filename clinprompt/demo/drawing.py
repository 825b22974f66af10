"""Drawing of phantoms: smooth noise, soft shapes, and lesions with the attributes that radiologists name.

Coordinates run from -1 to 1 in both directions, x to the right and y downwards. Images are float arrays in which 0 is
black and 1 is white.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Lesion:
    """What is drawn, in numbers: everything is relative to half the image's side, `contrast` to white.

    Attributes:
        x, y, radius: centre and size.
        contrast: added brightness; negative for a dark lesion.
        irregularity: of the border; 0 is a circle, 0.5 has lobes half as deep as the radius.
        edge: width of the transition at the border.
        heterogeneity: strength of the texture inside.
        halo: brightness of the zone around it (oedema, surrounding opacity); 0 for none.
    """

    x: float
    y: float
    radius: float
    contrast: float
    irregularity: float
    edge: float
    heterogeneity: float
    halo: float


def grid(size: int) -> tuple[Image, Image]:
    """The coordinates x and y of each pixel's centre, [size, size] each."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def noise(rng: np.random.Generator, size: int, scale: float) -> Image:
    """Smooth noise with mean 0 and standard deviation 1; `scale` is its grain, relative to half the side."""
    field = gaussian_filter(rng.standard_normal((size, size)), scale * size / 2, mode="wrap")
    field -= field.mean()
    return field / field.std()


def inside(distance: Image, width: float) -> Image:
    """1 where the signed distance is negative, 0 where it is positive, soft over `width`."""
    return 1 / (1 + np.exp(np.clip(distance / max(width, 1e-6), -40, 40)))


def ellipse(x: Image, y: Image, cx: float, cy: float, a: float, b: float, angle: float = 0.0) -> Image:
    """Approximate signed distance to an ellipse with half axes `a` and `b`, turned by `angle` radians."""
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    return (np.hypot(u / a, v / b) - 1) * min(a, b)


def draw_lesion(rng: np.random.Generator, image: Image, lesion: Lesion) -> Image:
    """The image with the lesion in it."""
    size = len(image)
    x, y = grid(size)
    dx, dy = x - lesion.x, y - lesion.y
    angle = np.arctan2(dy, dx)
    lobes = sum(rng.normal() / k**0.5 * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 8))
    border = lesion.radius * (1 + lesion.irregularity * 0.5 * lobes)
    distance = np.hypot(dx, dy) - np.maximum(border, 0.25 * lesion.radius)
    core = inside(distance, lesion.edge)
    texture = 1 + lesion.heterogeneity * noise(rng, size, 0.06)
    around = inside(distance - 0.7 * lesion.radius * (1 + 0.4 * noise(rng, size, 0.15)), 0.05) - core
    image = image + lesion.halo * np.clip(around, 0, 1)
    base = 0.5 * image + 0.5 * float((image * core).sum() / core.sum())
    return image * (1 - core) + (base + lesion.contrast * texture) * core
