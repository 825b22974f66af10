"""The drawn dataset: structure, determinism, and that every fault that can be asked for is there to be found."""

import csv
import hashlib
import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clinprompt.data.load import load_card
from clinprompt.demo.phantom import CLASSES, COLUMNS, SITES, write_phantom
from clinprompt.errors import BadParams
from clinprompt.files import sha256_folder

CARD = Path(__file__).parents[2] / "datasets" / "brain-phantom.yaml"
PATIENTS, IMAGES, SIZE = 8, 3, 48


def write(folder: Path, **knobs: Any) -> list[dict[str, str]]:
    """The manifest's rows of a small phantom."""
    write_phantom(folder, **({"patients": PATIENTS, "images_per_patient": IMAGES, "size": SIZE} | knobs))
    return listed(folder)


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(folder: Path, rows: list[dict[str, str]]) -> np.ndarray:
    """The rows' images [N, S, S] as floats."""
    return np.stack([np.asarray(Image.open(folder / row["path"]), dtype=np.float64) for row in rows])


def hashes(folder: Path, rows: list[dict[str, str]]) -> list[str]:
    return [hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() for row in rows]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("phantom") / "clean"
    return folder, write(folder)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write(tmp_path / name, patients=4, images_per_patient=1, seed=seed)
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")
    one, other = (set(hashes(tmp_path / n, listed(tmp_path / n))) for n in ("a", "c"))
    assert not one & other


def test_the_manifest_lists_every_image_once_with_its_facts(clean: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = clean
    assert tuple(rows[0]) == COLUMNS
    paths = [row["path"] for row in rows]
    assert paths == sorted(set(paths))
    assert set(paths) == {p.relative_to(folder).as_posix() for p in (folder / "images").iterdir()}
    assert len(rows) == len(CLASSES) * PATIENTS * IMAGES
    assert {row["site"] for row in rows} == set(SITES)
    assert {row["sex"] for row in rows} == {"F", "M"}
    assert all(18 <= int(row["age"]) <= 89 for row in rows)


def test_images_are_eight_bit_grey_of_the_size_asked_for(clean: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = clean
    for row in rows[:4]:
        with Image.open(folder / row["path"]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (SIZE, SIZE))


def test_each_class_has_its_patients_in_every_split_and_no_patient_is_in_two(
    clean: tuple[Path, list[dict[str, str]]],
) -> None:
    _, rows = clean
    splits = {row["patient"]: set() for row in rows}
    for row in rows:
        splits[row["patient"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set(Counter(row["patient"] for row in rows).values()) == {IMAGES}
    counts = Counter((row["label"], row["split"]) for row in rows)
    assert {counts[label, split] for label in CLASSES for split in ("train", "val", "test")} == {
        counts[CLASSES[0], split] for split in ("train", "val", "test")
    }
    assert min(counts.values()) >= IMAGES


def test_a_clean_phantom_has_no_two_equal_images(clean: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = clean
    assert len(set(hashes(folder, rows))) == len(rows)


def test_images_of_one_patient_are_more_alike_than_those_of_two(clean: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = clean
    normal = [row for row in rows if row["label"] == "no_tumor"]
    flat = pixels(folder, normal).reshape(len(normal), -1)
    alike = np.corrcoef(flat)
    patient = np.array([row["patient"] for row in normal])
    same = patient[:, None] == patient[None]
    np.fill_diagonal(alike, np.nan)
    assert np.nanmean(alike[same]) > np.nanmean(alike[~same])


def test_copies_are_byte_identical_across_train_and_test(tmp_path: Path) -> None:
    rows = write(tmp_path / "p", duplicates=5)
    by_hash: dict[str, list[str]] = {}
    for row, digest in zip(rows, hashes(tmp_path / "p", rows), strict=True):
        by_hash.setdefault(digest, []).append(row["split"])
    twins = [sorted(splits) for splits in by_hash.values() if len(splits) > 1]
    assert twins == [["test", "train"]] * 5


def test_near_copies_differ_in_bytes_and_hardly_in_looks(tmp_path: Path) -> None:
    rows = write(tmp_path / "p", near_duplicates=4)
    near = [row for row in rows if "near" in row["path"]]
    tested = [row for row in rows if row["split"] == "test"]
    assert len(near) == 4
    assert {row["split"] for row in near} == {"train"}
    assert len(set(hashes(tmp_path / "p", rows))) == len(rows)
    flat = pixels(tmp_path / "p", near + tested).reshape(len(near) + len(tested), -1)
    assert (np.corrcoef(flat)[:4, 4:].max(axis=1) > 0.995).all()


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_leakage_puts_that_share_of_the_test_patients_into_train(tmp_path: Path, share: float) -> None:
    rows = write(tmp_path / "p", leakage=share)
    patients = {split: {row["patient"] for row in rows if row["split"] == split} for split in ("train", "test")}
    assert len(patients["train"] & patients["test"]) == round(share * len(patients["test"]))


def test_label_noise_spoils_that_share_of_the_training_labels_and_no_other(
    tmp_path: Path, clean: tuple[Path, list[dict[str, str]]]
) -> None:
    _, truth = clean
    for share in (0.5, 1.0):
        rows = write(tmp_path / f"p{share}", label_noise=share)
        wrong = Counter(row["split"] for row, true in zip(rows, truth, strict=True) if row["label"] != true["label"])
        trained = sum(row["split"] == "train" for row in rows)
        # A label drawn from four classes is the true one in a quarter of the cases.
        assert abs(wrong["train"] / trained - 0.75 * share) < 0.15
        assert set(wrong) == {"train"}


def test_site_shift_sets_how_far_the_sites_intensities_are_apart(tmp_path: Path) -> None:
    spread = []
    for shift in (0.0, 1.0, 2.0):
        folder = tmp_path / str(shift)
        rows = [row for row in write(folder, site_shift=shift) if row["label"] == "no_tumor"]
        means = pixels(folder, rows).mean(axis=(1, 2))
        by_site = [means[[row["site"] == site for row in rows]] for site in SITES]
        spread.append(float(np.ptp([part.mean() for part in by_site if len(part)])))
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize(
    ("knob", "value"),
    [("patients", 3), ("size", 8), ("label_noise", 1.5), ("leakage", -0.1), ("images_per_patient", 0)],
)
def test_a_knob_outside_its_range_is_named_and_nothing_is_written(tmp_path: Path, knob: str, value: float) -> None:
    with pytest.raises(BadParams, match=rf"reader\.{knob}: must be between"):
        write(tmp_path / "p", **{knob: value})
    assert not (tmp_path / "p").exists()


def test_more_copies_than_test_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="copies of test images are asked for"):
        write(tmp_path / "p", duplicates=10_000)


def test_the_card_names_the_phantoms_classes_and_only_knobs_that_it_has() -> None:
    card = load_card(CARD)
    assert tuple(c.id for c in card.classes) == CLASSES
    assert set(card.reader.options) <= set(inspect.signature(write_phantom).parameters)
