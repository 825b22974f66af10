"""Captions in the words of reports, for drawn scenes of all organs: what is seen, and what textbooks call such a look.

Beside the attributes that `captions` names, they name modality and organ in many ways, grade each attribute, say where
the lesion is and how noisy the scan is, and give an impression: the name that goes with a typical look. The names tie
words to looks, and to nothing else: the scenes are drawn, and no patient had any of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinprompt.demo.captions import Scene
from clinprompt.demo.drawing import Lesion

IMPRESSIONS = 0.45  # share of captions with a name
_SCANS = {
    "brain": ("brain MRI", "MRI of the brain", "MR image of the head", "axial MRI slice of the brain", "cranial MRI"),
    "chest": ("chest X-ray", "chest radiograph", "frontal X-ray of the lungs", "thoracic radiograph", "CXR"),
    "breast": ("breast ultrasound", "ultrasound image of the breast", "breast sonogram", "sonography of the breast"),
    "retina": ("fundus photograph", "retinal image", "photograph of the retina", "eye fundus image"),
    "liver": ("abdominal CT", "CT of the liver", "CT slice of the abdomen", "liver CT scan"),
}
_FRAMES = (
    "{s} showing {f}",
    "{s} with {f}",
    "{s}: {f}",
    "{f} on {s}",
    "{s} of a patient with {f}",
    "there is {f} in this {s}",
    "{f}",
    "a photo of {f}",
    "this {s} shows {f}",
)
_NOUNS = ("lesion", "mass", "tumor", "nodule", "focus", "abnormality")
_NONE = (
    "no {n}",
    "no tumor",
    "no evidence of a {n}",
    "normal findings",
    "a normal {o}",
    "no abnormality",
    "an unremarkable {o}",
    "healthy tissue",
    "no signs of disease",
)
# The names of ragged lesions (none: as the others), and of bright and dark ones.
_OTHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "breast": (
        ("malignant tumor", "carcinoma", "suspicious mass", "breast cancer"),
        ("fibroadenoma", "benign tumor", "benign mass"),
        ("cyst", "benign lesion"),
    ),
    "retina": ((), ("hard exudate", "exudates", "drusen"), ("hemorrhage", "retinal bleeding")),
    "liver": (
        ("hepatocellular carcinoma", "liver cancer", "malignant tumor"),
        ("hemangioma", "benign tumor"),
        ("liver cyst", "cyst", "metastasis"),
    ),
}


@dataclass(frozen=True)
class Look:
    """A lesion's attributes as yes and no."""

    large: bool
    bright: bool
    irregular: bool
    mixed: bool
    blurred: bool
    swollen: bool
    edge: bool
    midline: bool

    @classmethod
    def of(cls, lesion: Lesion, place: str) -> "Look":
        """Of a drawn lesion, with the bounds that `captions` has."""
        return cls(
            large=lesion.radius > 0.15,
            bright=lesion.contrast > 0,
            irregular=lesion.irregularity > 0.22,
            mixed=lesion.heterogeneity > 0.3,
            blurred=lesion.edge > 0.022,
            swollen=lesion.halo > 0.03,
            edge="edge" in place,
            midline="midline" in place,
        )


def report(scene: Scene, rng: np.random.Generator) -> str:
    """One of very many sentences that are true of a scene, or typical of how it looks."""
    scan = str(rng.choice(_SCANS[scene.organ]))
    noun = str(rng.choice(_NOUNS))
    if scene.lesion is None:
        finding = str(rng.choice(_NONE)).format(n=noun, o=scene.organ)
    else:
        look = Look.of(scene.lesion, scene.place)
        named = rng.random() < IMPRESSIONS
        noun = str(rng.choice(names(scene.organ, look))) if named else noun
        finding = _finding(look, noun, scene, rng)
    return str(rng.choice(_FRAMES)).format(s=scan, f=finding)


def names(organ: str, look: Look) -> tuple[str, ...]:
    """What a typical lesion of that look is called in an organ."""
    ragged = sum((look.irregular, look.mixed, look.blurred)) >= 2
    if organ == "brain":
        return _brain(look, ragged)
    if organ == "chest":
        if look.bright and (look.blurred or look.large):
            return ("pneumonia", "consolidation", "lung opacity", "airspace opacity")
        return ("pulmonary nodule", "lung nodule", "mass") if look.bright else ("cavity", "lucency", "bulla")
    malignant, bright, dark = _OTHERS[organ]
    return malignant if ragged and malignant else bright if look.bright else dark


def _brain(look: Look, ragged: bool) -> tuple[str, ...]:
    if look.midline:
        return ("pituitary tumor", "pituitary adenoma", "sellar mass", "pituitary macroadenoma")
    if look.edge and not ragged:
        return ("meningioma", "extra-axial mass", "dural-based tumor")
    if ragged or look.swollen:
        return ("glioma", "glioblastoma", "intra-axial tumor", "high-grade glioma")
    return ("low-grade tumor", "metastasis", "brain tumor")


def _finding(look: Look, noun: str, scene: Scene, rng: np.random.Generator) -> str:
    words = [
        _word(rng, look.large, ("large", "big", "extensive"), ("small", "tiny", "little")),
        _word(rng, look.bright, ("bright", "hyperintense", "enhancing"), ("dark", "hypointense", "low-signal")),
        _word(rng, look.irregular, ("irregular", "lobulated", "spiculated"), ("round", "smooth", "oval")),
        _word(rng, look.mixed, ("heterogeneous", "inhomogeneous", "mixed"), ("homogeneous", "uniform")),
        _word(rng, look.blurred, ("ill-defined", "infiltrating", "poorly defined"), ("well-defined", "circumscribed")),
    ]
    chosen = [words[i] for i in sorted(rng.choice(len(words), rng.integers(0, 5), replace=False))]
    text = " ".join([_article([*chosen, noun]), *chosen, noun])
    if rng.random() < 0.4:
        swelling = "edema" if scene.organ == "brain" else "swelling"
        text += f" with surrounding {swelling}" if look.swollen else f" without {swelling}"
    if rng.random() < 0.5:
        text += f" {scene.place}"
    return text


def _word(rng: np.random.Generator, is_so: bool, words: Sequence[str], opposites: Sequence[str]) -> str:
    return str(rng.choice(words if is_so else opposites))


def _article(words: Sequence[str]) -> str:
    return "an" if words[0][0] in "aeiou" else "a"
