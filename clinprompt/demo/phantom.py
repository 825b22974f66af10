"""`brain-phantom`: seeded, drawn images that look like brain MRI, in the four classes of a public set of real ones.

Each patient has an anatomy and, unless the class is "no tumor", one lesion; each image is another slice through them,
with a scanner's noise. Three sites differ in intensity behaviour. The knobs beyond the size make the faults that
validation must find: wrong labels, copies across splits, patients in two splits.
"""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from clinprompt.demo.drawing import Image, Lesion, draw_lesion, noise
from clinprompt.demo.organs import Anatomy, brain
from clinprompt.errors import BadParams
from clinprompt.files import write_text
from clinprompt.progress import progress

CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
COLUMNS = ("path", "label", "split", "patient", "site", "sex", "age")
SHARES = {"train": 0.55, "val": 0.15, "test": 0.30}


@dataclass(frozen=True)
class Site:
    """How a site's scanner turns tissue into grey values."""

    gain: float
    gamma: float
    bias: float
    noise: float


SITES = {
    "A": Site(gain=1.0, gamma=1.0, bias=0.05, noise=0.03),
    "B": Site(gain=1.15, gamma=0.8, bias=0.15, noise=0.045),
    "C": Site(gain=0.85, gamma=1.25, bias=0.10, noise=0.06),
}


@dataclass(frozen=True)
class Patient:
    """One patient: what all of their images share."""

    number: int
    label: str
    split: str
    site: str
    sex: str
    age: int
    seed: int


def write_phantom(
    folder: Path,
    *,
    patients: int = 60,
    images_per_patient: int = 4,
    size: int = 96,
    seed: int = 0,
    label_noise: float = 0.0,
    duplicates: int = 0,
    near_duplicates: int = 0,
    leakage: float = 0.0,
    site_shift: float = 1.0,
) -> None:
    """Write `manifest.csv` and `images/*.png` (8-bit grey).

    Args:
        patients: in each class.
        size: side of the images in pixels.
        label_noise: share of the training images whose label is drawn anew from all classes; 1 leaves no signal.
        duplicates: how many training images are byte-identical copies of test images, beyond the others.
        near_duplicates: likewise, but slightly brighter and stored anew.
        leakage: share of the test patients of whom one image is in the training split.
        site_shift: 0 makes the sites alike, 1 is the default difference.

    Raises:
        BadParams: a number outside its range.
    """
    _check(patients, images_per_patient, size, label_noise, leakage)
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, str]] = []
    everyone = [p for label in CLASSES for p in _patients(label, patients, seed)]
    for patient in progress(everyone, "phantom", unit="patient"):
        for number in range(images_per_patient):
            path = f"images/{patient.label}-{patient.number:04d}-{number}.png"
            picture = _picture(_to_bytes_range(draw(patient, number, size, site_shift)))
            (folder / path).write_bytes(picture)
            rows.append(_row(path, patient))
    rng = np.random.default_rng([seed, 7])
    _leak_patients(rows, leakage, rng)
    _add_copies(folder, rows, duplicates, rng, near=False)
    _add_copies(folder, rows, near_duplicates, rng, near=True)
    _spoil_labels(rows, label_noise, rng)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["path"]))
    write_text(folder / "manifest.csv", text.getvalue())


def draw(patient: Patient, number: int, size: int, site_shift: float) -> Image:
    """One of a patient's images [size, size], about 0 to 1."""
    shape = np.random.default_rng([patient.seed, 1])
    rng = np.random.default_rng([patient.seed, 2, number])
    anatomy = brain(rng, size, shape, patient.age)
    image = anatomy.image
    lesion = lesion_of(patient.label, np.random.default_rng([patient.seed, 3]), anatomy)
    if lesion is not None:
        slice_ = np.random.default_rng([patient.seed, 4, number])
        lesion = replace(lesion, radius=lesion.radius * slice_.uniform(0.75, 1.1))
        # The same generator for each slice: the same lobes.
        image = draw_lesion(np.random.default_rng([patient.seed, 5]), image, lesion)
    return scan(image, SITES[patient.site], site_shift, rng)


def lesion_of(label: str, rng: np.random.Generator, anatomy: Anatomy) -> Lesion | None:
    """A lesion as the class has it; the classes' attributes overlap, and some lesions are faint or small."""
    if label == "no_tumor":
        return None
    hard = rng.random() < 0.3
    angle = rng.uniform(0, 2 * np.pi)
    faint = 0.45 if hard else 1.0
    if label == "glioma_tumor":
        r = rng.uniform(0.15, 0.6)
        return Lesion(
            x=anatomy.cx + r * anatomy.a * np.cos(angle),
            y=anatomy.cy + r * anatomy.b * np.sin(angle),
            radius=rng.uniform(0.12, 0.26),
            contrast=faint * rng.choice([-0.2, 0.3]),
            irregularity=rng.uniform(0.2, 0.55),
            edge=rng.uniform(0.02, 0.05),
            heterogeneity=rng.uniform(0.3, 0.8),
            halo=faint * rng.uniform(0.06, 0.18),
        )
    if label == "meningioma_tumor":
        r = rng.uniform(0.62, 0.9)
        return Lesion(
            x=anatomy.cx + r * anatomy.a * np.cos(angle),
            y=anatomy.cy + r * anatomy.b * np.sin(angle),
            radius=rng.uniform(0.1, 0.22),
            contrast=faint * rng.uniform(0.2, 0.38),
            irregularity=rng.uniform(0.0, 0.2),
            edge=rng.uniform(0.008, 0.02),
            heterogeneity=rng.uniform(0.0, 0.25),
            halo=rng.choice([0.0, 0.05]),
        )
    return Lesion(
        x=anatomy.cx + rng.normal(0, 0.05),
        y=anatomy.cy + anatomy.b * rng.uniform(0.3, 0.6),
        radius=rng.uniform(0.05, 0.13),
        contrast=faint * rng.uniform(0.22, 0.42),
        irregularity=rng.uniform(0.0, 0.2),
        edge=rng.uniform(0.008, 0.025),
        heterogeneity=rng.uniform(0.0, 0.3),
        halo=0.0,
    )


def scan(image: Image, site: Site, site_shift: float, rng: np.random.Generator) -> Image:
    """What a site's scanner makes of the tissue: gain, gamma, a smooth bias field, noise."""
    size = len(image)
    gain, gamma = 1 + (site.gain - 1) * site_shift, 1 + (site.gamma - 1) * site_shift
    field = 1 + site.bias * site_shift * noise(rng, size, 0.8)
    seen = gain * np.clip(image, 0, None) ** gamma * field
    return np.abs(seen + site.noise * rng.standard_normal(image.shape))


def _patients(label: str, count: int, seed: int) -> list[Patient]:
    """A class's patients; the split's shares hold in each class, whatever the count."""
    rng = np.random.default_rng([seed, CLASSES.index(label)])
    val, test = (max(1, round(SHARES[s] * count)) for s in ("val", "test"))
    splits = ["train"] * (count - val - test) + ["val"] * val + ["test"] * test
    return [
        Patient(
            number=number,
            label=label,
            split=splits[number],
            site=str(rng.choice(list(SITES), p=[0.5, 0.3, 0.2])),
            sex=str(rng.choice(["F", "M"])),
            age=int(np.clip(rng.normal(52, 16), 18, 89)),
            seed=int(rng.integers(2**32)),
        )
        for number in range(count)
    ]


def _row(path: str, patient: Patient) -> dict[str, str]:
    return {
        "path": path,
        "label": patient.label,
        "split": patient.split,
        "patient": f"{patient.label}-{patient.number:04d}",
        "site": patient.site,
        "sex": patient.sex,
        "age": str(patient.age),
    }


def _leak_patients(rows: list[dict[str, str]], share: float, rng: np.random.Generator) -> None:
    tested = sorted({row["patient"] for row in rows if row["split"] == "test"})
    for patient in rng.choice(tested, round(share * len(tested)), replace=False):
        next(row for row in rows if row["patient"] == patient)["split"] = "train"


def _add_copies(folder: Path, rows: list[dict[str, str]], count: int, rng: np.random.Generator, *, near: bool) -> None:
    tested = [row for row in rows if row["split"] == "test"]
    if count > len(tested):
        raise BadParams(f"reader: {count} copies of test images are asked for, but there are {len(tested)}.")
    for number, index in enumerate(rng.choice(len(tested), count, replace=False)):
        original = tested[index]
        path = f"images/{'near' if near else 'copy'}-{number:04d}.png"
        data = (folder / original["path"]).read_bytes()
        (folder / path).write_bytes(_brighter(data) if near else data)
        # Another patient's name: only the pixels tell.
        rows.append(original | {"path": path, "split": "train", "patient": path})


def _spoil_labels(rows: list[dict[str, str]], share: float, rng: np.random.Generator) -> None:
    trained = [row for row in rows if row["split"] == "train"]
    for index in rng.choice(len(trained), round(share * len(trained)), replace=False):
        trained[index]["label"] = str(rng.choice(CLASSES))


def _to_bytes_range(image: Image) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _picture(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "PNG", pnginfo=PngInfo())
    return buffer.getvalue()


def _brighter(data: bytes) -> bytes:
    pixels = np.asarray(Picture.open(io.BytesIO(data)), dtype=np.int64)
    return _picture(np.clip(pixels + 4, 0, 255).astype(np.uint8))


def _check(patients: int, images_per_patient: int, size: int, label_noise: float, leakage: float) -> None:
    for name, value, low, high in (
        ("patients", patients, 4, 100_000),
        ("images_per_patient", images_per_patient, 1, 1000),
        ("size", size, 32, 1024),
        ("label_noise", label_noise, 0, 1),
        ("leakage", leakage, 0, 1),
    ):
        if not low <= value <= high:
            raise BadParams(f"reader.{name}: must be between {low} and {high}, found {value}.")
