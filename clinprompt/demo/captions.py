"""Phantoms of five organs with captions that say what is drawn: the pairs that `demo-clip` is trained on.

The captions name attributes (size, shape, border, brightness, texture, surroundings, place). The brain's classes are
named in few of them, and then often wrongly, so that zero-shot by class names is poor and the attributes are what
tuned prompts can find.
"""

import math
from dataclasses import dataclass

import numpy as np

from clinprompt.demo.drawing import Image, Lesion, draw_lesion, grid
from clinprompt.demo.organs import ORGANS, Anatomy
from clinprompt.demo.phantom import SITES, scan

NAMED = 0.03  # share of brain captions with a class's name
MISNAMED = 0.8  # share of these in which the name is drawn at random
NAMES = ("glioma", "meningioma", "pituitary tumor")

_NOUNS = ("mass", "lesion", "tumor", "finding", "abnormality", "nodule")
_SEEN = ("{}", "an image of {}", "{} is seen", "a scan showing {}", "there is {}", "a photo of {}", "{} visible")
_WHERE = (
    "{m} of the {o} with {f}",
    "{o} {m} showing {f}",
    "a {o} {m} with {f}",
    "{f} on {o} {m}",
    "{f} in the {o}",
    "{f}",
)
_NORMAL = (
    "no {n}",
    "no {n} seen",
    "without a {n}",
    "a normal {o}",
    "an unremarkable {o} {m}",
    "a healthy {o}",
    "no abnormality",
)


@dataclass(frozen=True)
class Scene:
    """An image, uint8 [S, S], where its lesion is, 0 or 255 [S, S], and the facts that captions are made of."""

    pixels: np.ndarray
    mask: np.ndarray
    organ: str
    modality: str
    lesion: Lesion | None
    place: str


def draw_scene(seed: int, index: int, size: int) -> Scene:
    """The `index`-th scene of a seed; half of them are brains, a fifth have no lesion."""
    rng = np.random.default_rng([seed, 11, index])
    organ = "brain" if rng.random() < 0.5 else str(rng.choice([o for o in ORGANS if o != "brain"]))
    modality, draw = ORGANS[organ]
    anatomy = draw(rng, size, rng)
    image, lesion, place = anatomy.image, None, ""
    if rng.random() > 0.2:
        lesion, place = _random_lesion(rng, anatomy, organ)
        image = draw_lesion(rng, image, lesion)
    site = SITES[str(rng.choice(list(SITES)))]
    image = scan(image, site, 1.0, rng)
    return Scene(_grey(image), _mask(lesion, size), organ, modality, lesion, place)


def attributes(scene: Scene) -> list[float]:
    """The facts as numbers: 0 or 1, and NaN where a scene without a lesion has none; the order is that of `FACTS`."""
    lesion = scene.lesion
    if lesion is None:
        return [0.0] + [math.nan] * (len(FACTS) - 1)
    return [
        1.0,
        float(lesion.radius > 0.15),
        float(lesion.contrast > 0),
        float(lesion.irregularity > 0.22),
        float(lesion.heterogeneity > 0.3),
        float(lesion.edge > 0.022),
        float(lesion.halo > 0.03),
        float("edge" in scene.place),
        float("midline" in scene.place),
    ]


FACTS = ("lesion", "large", "bright", "irregular", "heterogeneous", "ill-defined", "surroundings", "edge", "midline")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many sentences that are true of a scene."""
    fields = {"o": scene.organ, "m": scene.modality, "n": rng.choice(_NOUNS[:4])}
    if scene.lesion is None:
        text = str(rng.choice(_NORMAL)).format(**fields)
        return text if rng.random() < 0.5 else str(rng.choice(_WHERE[:3])).format(f=text, **fields)
    finding = str(rng.choice(_SEEN)).format(_finding(scene, rng))
    return str(rng.choice(_WHERE)).format(f=finding, **fields)


def _finding(scene: Scene, rng: np.random.Generator) -> str:
    lesion = scene.lesion
    assert lesion is not None  # noqa: S101 - callers have seen to it
    adjectives = [
        ("small" if lesion.radius < 0.11 else "large" if lesion.radius > 0.2 else "medium-sized"),
        ("bright" if lesion.contrast > 0 else "dark"),
        ("irregular" if lesion.irregularity > 0.22 else str(rng.choice(["round", "smooth", "regular"]))),
        ("heterogeneous" if lesion.heterogeneity > 0.3 else "homogeneous"),
        ("ill-defined" if lesion.edge > 0.022 else "well-defined"),
    ]
    chosen_adjectives = [adjectives[i] for i in sorted(rng.choice(5, rng.integers(1, 5), replace=False))]
    noun = str(rng.choice(_NOUNS))
    if scene.organ == "brain" and rng.random() < NAMED:
        noun = _name(scene, rng)
    text = " ".join(["a", *chosen_adjectives, noun])
    if rng.random() < 0.5:
        surroundings = "oedema" if scene.organ == "brain" else "swelling"
        text += f" with surrounding {surroundings}" if lesion.halo > 0.03 else f" without {surroundings}"
    if rng.random() < 0.6:
        text += f" {scene.place}"
    return text


def _name(scene: Scene, rng: np.random.Generator) -> str:
    assert scene.lesion is not None  # noqa: S101 - callers have seen to it
    if rng.random() < MISNAMED:
        return str(rng.choice(NAMES))
    if "edge" in scene.place:
        return "meningioma"
    return "pituitary tumor" if "midline" in scene.place else "glioma"


def _random_lesion(rng: np.random.Generator, anatomy: Anatomy, organ: str) -> tuple[Lesion, str]:
    region = rng.choice(["deep", "edge", "midline"] if organ == "brain" else ["deep", "edge"])
    angle, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.55) if region == "deep" else rng.uniform(0.65, 0.92)
    dx, dy = r * anatomy.a * np.cos(angle), r * anatomy.b * np.sin(angle)
    place = f"deep in the {organ}" if region == "deep" else f"at the edge of the {organ}"
    if region == "midline":
        dx, dy = rng.normal(0, 0.05), anatomy.b * rng.uniform(0.3, 0.6)
        place = "in the midline near the base"
    is_sharp = rng.random() < 0.5
    lesion = Lesion(
        x=anatomy.cx + dx,
        y=anatomy.cy + dy,
        radius=rng.uniform(0.06, 0.26),
        contrast=rng.choice([-1, 1], p=[0.3, 0.7]) * rng.uniform(0.15, 0.45),
        irregularity=rng.uniform(0.0, 0.18) if rng.random() < 0.5 else rng.uniform(0.25, 0.55),
        edge=rng.uniform(0.008, 0.02) if is_sharp else rng.uniform(0.025, 0.05),
        heterogeneity=rng.uniform(0.0, 0.25) if rng.random() < 0.5 else rng.uniform(0.35, 0.8),
        halo=0.0 if rng.random() < 0.5 else rng.uniform(0.05, 0.2),
    )
    return lesion, place


def _mask(lesion: Lesion | None, size: int) -> np.ndarray:
    if lesion is None:
        return np.zeros((size, size), dtype=np.uint8)
    x, y = grid(size)
    return ((np.hypot(x - lesion.x, y - lesion.y) < lesion.radius) * 255).astype(np.uint8)


def _grey(image: Image) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
