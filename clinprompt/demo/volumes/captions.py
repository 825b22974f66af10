"""Brains drawn for training `demo-m3d`, and captions of what is seen: sizes, scanner, age. No caption has a diagnosis.

Structures vary here each for itself, and more widely than in `brain-phantom-3d`, with which no seed is shared.
"""

from dataclasses import dataclass

import numpy as np

from clinprompt.data.codecs import decode_image
from clinprompt.data.volumes import VolumePreprocessing
from clinprompt.demo.volumes.anatomy import SPACING, STRUCTURES, Array, anatomy
from clinprompt.demo.volumes.deformation import deform, smooth_noise
from clinprompt.demo.volumes.phantom import nifti_bytes
from clinprompt.demo.volumes.scanners import Scanner, random_pose, scan

SIZE = 64
PARTS = (*STRUCTURES, "whole_brain")
SCALES = np.array([0.15, 0.30, 0.17, 0.12, 0.12, 0.08])  # of the logarithms of the parts' sizes, to about -2 to 2

_NAMES = {
    "hippocampus": ("hippocampus", "hippocampi", "hippocampal volume", "Hippocampal Vol"),
    "ventricles": ("ventricles", "lateral ventricles", "ventricular volume", "Ventricular size"),
    "entorhinal": ("entorhinal cortex", "entorhinal volume", "Entorhinal Vol"),
    "fusiform": ("fusiform gyrus", "fusiform volume", "Fusiform Vol"),
    "middle_temporal": ("middle temporal gyrus", "middle temporal volume", "Middle temporal Vol"),
    "whole_brain": ("brain", "whole brain", "brain volume", "Whole brain Vol"),
}
_SMALL = ("small", "reduced", "shrunken", "thin")
_LARGE = ("large", "enlarged", "wide", "increased")
_NORMAL = ("normal", "average", "of normal size", "regular")
_OPENINGS = ("a brain MRI with", "brain MRI:", "MRI of the brain.", "T1 volume of a head:", "a photo of a brain,", "")
_RECORD = ("hippocampus", "ventricles", "whole_brain", "entorhinal", "fusiform", "middle_temporal")


@dataclass(frozen=True)
class Scene:
    """A volume on the tower's grid, and the facts that captions are made of.

    Attributes:
        voxels: uint8 [D, H, W].
        places: the share of each patch, in the tower's order, that each of `STRUCTURES` has [N, 5].
        sizes: logarithms of the parts' volumes against the template's, in parts of `SCALES` [6].
        volumes: in mm³ [6], in the order of `PARTS`.
    """

    voxels: Array
    places: Array
    sizes: Array
    volumes: Array
    scanner: Scanner
    age: int


def draw_scene(seed: int, index: int, preprocessing: VolumePreprocessing, patch: int) -> Scene:
    """The `index`-th scene of a seed, for a tower with patches of so many voxels along each side."""
    rng = np.random.default_rng([seed, 31, index])
    loss = rng.uniform(-0.4, 1.4)  # of tissue everywhere; half of what varies
    logs = loss * np.array([-0.15, 0.25, -0.17, -0.08, -0.08]) + rng.normal(0, [0.13, 0.25, 0.15, 0.09, 0.09])
    brain = deform(np.clip(np.exp(logs), 0.7, 2.0), smooth_noise(rng, 2.0))
    scale = float(np.clip(1 + rng.normal(-0.02, 0.03), 0.88, 1.04))
    scanner = Scanner(
        gamma=rng.uniform(0.8, 1.7),
        bias=rng.uniform(0.02, 0.16),
        noise=rng.uniform(0.02, 0.07),
        thickness=float(rng.choice([1.0, 1.3, 1.6])),
        bright=1000,
        flips=(1, 1, 1),
    )
    seen = scan(brain, random_pose(rng, scale), scanner, SIZE, rng)
    image = decode_image(nifti_bytes(seen.values, seen.affine))
    values = preprocessing.place(image, image.values)
    labels = seen.labels.transpose(2, 1, 0)
    places = [
        _shares(preprocessing.place(image, (labels == n)[..., None].astype(np.uint8)), patch)
        for n in range(1, len(STRUCTURES) + 1)
    ]
    volumes = brain.volumes * scale**3
    masks = np.append(anatomy().masks.sum(axis=(1, 2, 3)), anatomy().brain.sum()) * SPACING**3
    return Scene(
        voxels=values.round().astype(np.uint8),
        places=np.stack(places, axis=1),
        sizes=(np.log(volumes / masks) / SCALES).astype(np.float32),
        volumes=volumes,
        scanner=scanner,
        age=int(np.clip(66 + 9 * loss + rng.normal(0, 6), 50, 92)),
    )


def caption(scene: Scene, rng: np.random.Generator) -> tuple[str, Array]:
    """One of many sentences that are true of a scene, and which of its parts [6] it tells of."""
    told = np.zeros(len(PARTS), bool)
    if rng.random() < 0.35:
        there = [part for part in _RECORD if rng.random() < 0.85]
        pieces = [_measured(scene, part, rng) for part in there]
    else:
        there = list(rng.choice(PARTS, rng.integers(1, 5), replace=False))
        pieces = [_in_words(scene, part, rng) for part in there]
        pieces += [piece for piece in (_impression(scene), _scanner(scene, rng), _age(scene)) if rng.random() < 0.35]
        pieces = [pieces[i] for i in rng.permutation(len(pieces))]
    told[[PARTS.index(part) for part in there]] = True
    text = str(rng.choice([", ", ". ", "; "])).join(pieces)
    return f"{rng.choice(_OPENINGS)} {text}".strip(), told


def _shares(mask: Array, patch: int) -> Array:
    """The mean of each patch [N]."""
    d, h, w = (side // patch for side in mask.shape)
    return mask.reshape(d, patch, h, patch, w, patch).mean(axis=(1, 3, 5)).ravel()


def _measured(scene: Scene, part: str, rng: np.random.Generator) -> str:
    volume = scene.volumes[PARTS.index(part)]
    name = _NAMES[part][-1] if rng.random() < 0.7 else str(rng.choice(_NAMES[part]))
    return f"{name}: {volume:.2f}" if rng.random() < 0.7 else f"{name} {volume:.0f} mm3"


def _in_words(scene: Scene, part: str, rng: np.random.Generator) -> str:
    size, name = scene.sizes[PARTS.index(part)], str(rng.choice(_NAMES[part]))
    if abs(size) < 0.6:
        return f"{rng.choice(_NORMAL)} {name}"
    much = str(rng.choice(["mildly ", ""])) if abs(size) < 1.3 else str(rng.choice(["markedly ", "very "]))
    return f"{much}{rng.choice(_SMALL if size < 0 else _LARGE)} {name}"


def _impression(scene: Scene) -> str:
    """Of tissue loss on the whole; a scan without it is called normal, as radiologists do."""
    loss = float(np.mean(scene.sizes[:5] * np.array([-1, 1, -1, -1, -1])))
    if loss < 0.2:
        return "normal for age, no atrophy"
    return "mild atrophy" if loss < 0.8 else "marked atrophy as in degenerative disease"


def _scanner(scene: Scene, rng: np.random.Generator) -> str:
    seen = scene.scanner
    words = (
        "noisy" if seen.noise > 0.045 else "low noise",
        "thick slices" if seen.thickness > 1.2 else "thin slices",
        "strong contrast" if seen.gamma > 1.25 else "flat contrast",
        "uneven brightness" if seen.bias > 0.09 else "even brightness",
    )
    return str(rng.choice(words))


def _age(scene: Scene) -> str:
    return f"age {scene.age} years" if scene.age % 2 else ("elderly" if scene.age > 70 else "middle-aged")
