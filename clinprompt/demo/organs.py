"""Phantoms of organs without a lesion: brain MRI, chest X-ray, breast ultrasound, fundus photograph, liver CT."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clinprompt.demo.drawing import Image, ellipse, grid, inside, noise


@dataclass(frozen=True)
class Anatomy:
    """An image without a lesion, and where lesions may lie: centre and half axes of an ellipse."""

    image: Image
    cx: float
    cy: float
    a: float
    b: float


def brain(rng: np.random.Generator, size: int, shape: np.random.Generator, age: float = 50.0) -> Anatomy:
    """An axial, T1-like slice. `shape` draws what stays the same in all of a patient's slices."""
    x, y = grid(size)
    a, b = shape.uniform(0.6, 0.72), shape.uniform(0.74, 0.86)
    tilt, ventricle = shape.normal(0, 0.06), shape.uniform(0.8, 1.1) * (0.6 + age / 125)
    folds_rng = np.random.default_rng(int(shape.integers(2**32)))
    zoom = rng.uniform(0.95, 1.03)
    cx, cy = rng.normal(0, 0.02, 2)
    a, b = a * zoom, b * zoom

    scalp = inside(np.abs(ellipse(x, y, cx, cy, a * 1.2, b * 1.14, tilt)) - 0.03, 0.012)
    tissue = inside(ellipse(x, y, cx, cy, a, b, tilt), 0.012)
    folds = noise(folds_rng, size, 0.045) + 0.5 * noise(rng, size, 0.03)
    depth = np.clip(-ellipse(x, y, cx, cy, a, b, tilt) / 0.35, 0, 1)
    white = 0.42 + 0.12 * depth + (0.07 - 0.045 * depth) * np.tanh(folds)
    image = 0.75 * scalp + white * tissue
    midline = inside(np.abs(x - cx + tilt * (y - cy)) - 0.006, 0.008) * inside(np.abs(y - cy) - 0.75 * b, 0.02)
    image -= 0.22 * midline * tissue
    for side in (-1, 1):
        horn = ellipse(
            x, y, cx + side * 0.1 * ventricle, cy - 0.06, 0.055 * ventricle, 0.2 * ventricle, side * 0.3 + tilt
        )
        image -= 0.38 * inside(horn, 0.015) * tissue
    return Anatomy(image, cx, cy, a, b)


def chest(rng: np.random.Generator, size: int, shape: np.random.Generator) -> Anatomy:
    """A frontal chest X-ray: lungs, ribs, heart."""
    x, y = grid(size)
    image = 0.75 - 0.08 * np.abs(x) + 0.04 * noise(rng, size, 0.2)
    width, height = shape.uniform(0.24, 0.32), shape.uniform(0.55, 0.68)
    for side in (-1, 1):
        image -= shape.uniform(0.4, 0.48) * inside(ellipse(x, y, side * 0.42, -0.02, width, height, side * 0.1), 0.03)
    for level in np.arange(-0.7, 0.7, shape.uniform(0.17, 0.22)):
        image += 0.09 * inside(np.abs(y - level - 0.25 * x**2) - 0.02, 0.012)
    image += 0.3 * inside(ellipse(x, y, 0.12, 0.3, 0.26, 0.32, 0.4), 0.04)
    image += 0.15 * inside(np.abs(x) - 0.07, 0.03)
    side = 1 if rng.random() < 0.5 else -1
    return Anatomy(image, side * 0.42, 0.0, width * 0.8, height * 0.8)


def breast(rng: np.random.Generator, size: int, shape: np.random.Generator) -> Anatomy:
    """A breast in ultrasound: layers and speckle."""
    _, y = grid(size)
    layers = 0.5 + 0.18 * np.sin(6 * y + shape.uniform(0, 6) + 0.5 * noise(rng, size, 0.25)) - 0.15 * y
    speckle = rng.rayleigh(0.8, (size, size))
    image = layers * (0.5 + 0.5 * speckle)
    return Anatomy(np.asarray(image), 0.0, shape.uniform(-0.1, 0.2), 0.6, 0.45)


def fundus(rng: np.random.Generator, size: int, shape: np.random.Generator) -> Anatomy:
    """A grey fundus photograph: disc, vessels, dark surround."""
    x, y = grid(size)
    disc_x = shape.choice([-0.5, 0.5])
    image = 0.5 + 0.05 * noise(rng, size, 0.2) + 0.4 * inside(ellipse(x, y, disc_x, 0.0, 0.13, 0.15), 0.02)
    for _ in range(6):
        bend, start = shape.uniform(-1.2, 1.2), shape.uniform(-0.1, 0.1)
        image -= 0.16 * inside(np.abs(y - start - bend * (x - disc_x) * np.abs(x - disc_x)) - 0.012, 0.008)
    image *= inside(np.hypot(x, y) - 0.92, 0.01)
    return Anatomy(np.asarray(image), -0.3 * disc_x, 0.0, 0.5, 0.6)


def liver(rng: np.random.Generator, size: int, shape: np.random.Generator) -> Anatomy:
    """An abdominal CT slice: body, liver, spine, kidneys."""
    x, y = grid(size)
    image = 0.32 * inside(ellipse(x, y, 0, 0, 0.9, shape.uniform(0.62, 0.72)), 0.012)
    a, b = shape.uniform(0.4, 0.5), shape.uniform(0.34, 0.42)
    image += 0.22 * inside(ellipse(x, y, -0.32, -0.08, a, b, 0.3), 0.015)
    image += 0.45 * inside(ellipse(x, y, 0, 0.42, 0.12, 0.12), 0.015)
    for side in (-1, 1):
        image += 0.3 * inside(ellipse(x, y, side * 0.4, 0.36, 0.12, 0.16, side * 0.4), 0.015)
    image += 0.025 * noise(rng, size, 0.03) * (image > 0.1)
    return Anatomy(image, -0.32, -0.08, a * 0.75, b * 0.75)


# Organ and modality as captions name them.
ORGANS: dict[str, tuple[str, Callable[[np.random.Generator, int, np.random.Generator], Anatomy]]] = {
    "brain": ("MRI", brain),
    "chest": ("X-ray", chest),
    "breast": ("ultrasound", breast),
    "retina": ("fundus photograph", fundus),
    "liver": ("CT", liver),
}
