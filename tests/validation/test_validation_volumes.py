"""validate on volumes: geometry, the record's numbers, text in headers, scans that are there twice."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_volumes import PATIENT, drawn, nifti, slices, zipped
from scipy.ndimage import gaussian_filter, shift, zoom
from tiny_dataset import CLASSES, Dataset

from clinprompt.data.load import load_card
from clinprompt.data.near_duplicates.fingerprint import collect
from clinprompt.data.near_duplicates.pairs import near_pairs
from clinprompt.data.near_duplicates.volumes import volume_print
from components.report.images import dropped_pairs

MM = np.diag([5.0, 5, 5, 1])


@pytest.fixture
def volumes(tmp_path: Path, root: Path, dataset: Dataset) -> Dataset:
    """A healthy dataset of volumes."""
    made = Dataset(tmp_path, root, card=dataset.card)
    for split in ("train", "val", "test"):
        for label in CLASSES:
            for number in range(5):
                path = f"{split}/{label}/{number}.nii"
                made.put(path, nifti(drawn((18, 20, 24), zlib.crc32(path.encode())), MM), split, label)
    return made


def geometry(dataset: Dataset) -> pd.DataFrame:
    return pd.read_parquet(dataset.folder / "validate" / "evidence" / "images.parquet").set_index("id")


def test_a_healthy_dataset_of_volumes_is_accepted_with_its_geometry(volumes: Dataset) -> None:
    assert volumes.validate() == 0
    assert volumes.failed() == volumes.failed("warning") == {}
    assert volumes.verdict()["leaks"]["near_pairs"] == 0
    row = geometry(volumes).iloc[0]
    assert (row["volume_depth"], row["volume_view"], row["volume_anisotropy"], row["volume_orientation"]) == (
        24,
        90,
        1,
        "RAS",
    )
    assert (row["spacing_slices"], row["spacing_rows"], row["spacing_columns"]) == (5, 5, 5)


def test_unusual_geometry_is_flagged_and_used(volumes: Dataset) -> None:
    head = [drawn((18, 20, 24), seed) for seed in range(4)]
    volumes.put("thick.nii", nifti(head[0], np.diag([5.0, 5, 30, 1])))
    volumes.put("lost.nii", nifti(head[1], MM, code=0))
    volumes.put("named.nii", nifti(head[2], MM, descrip=PATIENT.encode()))
    volumes.put("narrow.nii", nifti(head[3]))
    assert volumes.validate() == 0
    warned = volumes.failed("warning")
    thick = volumes.name("thick.nii")
    assert warned["voxel size"] == (
        f"Expected that no voxel is longer than 10 mm; not so for 1 of 34 images: {thick} (30.0)."
    )
    assert f"{thick} (6.0)" in warned["voxel shape"]
    assert f"{volumes.name('lost.nii')} (unknown)" in warned["orientation known"]
    assert f"{volumes.name('named.nii')} (descrip)" in warned["text in headers"]
    assert f"{volumes.name('narrow.nii')} (18.0)" in warned["field of view"]
    flagged = {one["id"]: one["checks"] for one in volumes.verdict()["flagged"]}
    ids = {name: volumes.rows[f"{name}.nii"]["id"] for name in ("thick", "lost", "named", "narrow")}
    assert flagged == {
        ids["thick"]: ["voxel size", "voxel shape"],
        ids["lost"]: ["orientation known"],
        ids["named"]: ["text in headers"],
        ids["narrow"]: ["field of view"],
    }
    assert volumes.verdict()["flagged_images"] == 4
    for file in (volumes.folder / "validate" / "evidence").rglob("*.*"):
        assert PATIENT.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("data", "check", "reason"),
    [
        (nifti(drawn((18, 20, 24)))[:900], "readable", "truncated"),
        (nifti(np.zeros((18, 20, 24), np.int16)), "not constant", "every voxel is 0"),
        (nifti(np.full((18, 20, 24), np.nan, np.float32)), "readable", "not finite"),
        (nifti(np.zeros((18, 20, 24, 2), np.int16)), "readable", "4 axes"),
        (nifti(drawn((9, 10, 24))), "smallest size", "9 x 10 x 24 voxels, at least 16 on two sides"),
    ],
)
def test_a_bad_volume_rejects_the_data_with_a_sentence(volumes: Dataset, data: bytes, check: str, reason: str) -> None:
    volumes.put("bad.nii", data)
    assert volumes.validate() == 65
    assert reason in volumes.failed()[check]


def test_numbers_of_the_record_are_held_to_the_cards_bounds(volumes: Dataset) -> None:
    volumes.card |= {
        "reader": {"kind": "table"},
        "metadata": {"extra": ["MMSE", "Hippocampus"]},
        "record": {
            "measures": [{"column": "Hippocampus", "name": "hippocampal volume", "unit": "mm3", "low": 0}],
            "score": {"column": "MMSE", "name": "MMSE", "low": 0, "high": 30},
        },
    }
    first, second, third = list(volumes.rows)[:3]
    for path, row in volumes.rows.items():
        row |= {"MMSE": None if path == third else "29", "Hippocampus": "6400.5"}
    assert volumes.validate() == 0
    volumes.rows[first]["MMSE"] = "45"
    volumes.rows[second] |= {"MMSE": "good", "Hippocampus": "-3"}
    assert volumes.validate() == 65
    failed = volumes.failed()
    assert f"{volumes.name(first)} (45 is above 30)" in failed["record MMSE"]
    assert "MMSE is a number from 0 to 30, or empty; not so for 2 of 30 images" in failed["record MMSE"]
    assert f"{volumes.name(second)} (-3 is below 0)" in failed["record Hippocampus"]


def test_the_same_scan_in_another_file_is_a_leak(volumes: Dataset) -> None:
    path = "train/none/0.nii"
    head = drawn((18, 20, 24), zlib.crc32(path.encode()))
    volumes.put("test/copy.nii.gz", gzip.compress(nifti(head, MM), mtime=0), "test", "none")
    volumes.put("val/copy.zip", zipped(slices(head, (5, 5, 5))), "val", "none")
    assert volumes.validate() == 65
    assert "train" in volumes.failed()["leak: images"]
    assert volumes.verdict()["leaks"]["near_pairs"] == 3


def test_of_a_pair_of_volumes_one_is_dropped_and_the_report_s_pictures_are_both_scans_planes(volumes: Dataset) -> None:
    volumes.card |= {"on_leak": "drop_from_train"}
    path = "train/none/0.nii"
    head = drawn((18, 20, 24), zlib.crc32(path.encode()))
    volumes.put("test/copy.nii.gz", gzip.compress(nifti(head * 2, MM), mtime=0), "test", "none")
    volumes.params["min_images_per_class"] = 4
    assert volumes.validate() == 0
    [one] = volumes.verdict()["dropped"]
    assert (one["id"], one["twin_id"]) == (volumes.rows[path]["id"], volumes.rows["test/copy.nii.gz"]["id"])
    assert (one["reason"], one["split"], one["twin_split"]) == ("near duplicate", "train", "test")
    [pair] = dropped_pairs([one], volumes.folder / "images", load_card(volumes.folder / "demo.yaml"))
    assert [image["split"] for image in pair["images"]] == ["train", "test"]
    assert all(image["picture"].wide for image in pair["images"])


def test_altered_copies_are_found_and_other_subjects_are_not() -> None:
    shape = (32, 36, 40)
    ball = drawn(shape, 0) > 0

    def texture(seed: int) -> np.ndarray:
        smooth = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4)
        return smooth / smooth.std()

    common = texture(99)  # all heads are alike
    greys = {f"head {seed}": 500 + 100 * common + 50 * texture(seed) for seed in range(12)}
    heads = {name: np.pad(ball * np.clip(values, 1, None), 4) for name, values in greys.items()}
    noise = np.random.default_rng(0).normal(0, 20, heads["head 0"].shape)
    one = heads["head 0"]
    bias = np.exp(0.2 * gaussian_filter(np.random.default_rng(1).normal(size=one.shape), 12) / 0.004)
    altered = {
        "gain": one * 3 + 50,
        "gamma": (one / one.max()) ** 0.8 * 900,
        "shifted": shift(one, (1.5, -2, 1), order=1),
        "resampled": zoom(one, (0.8, 0.7, 0.9), order=1),
        "larger": zoom(one, 1.4, order=1),
        "noisy": one + noise,
        "biased": one * bias.clip(0.7, 1.4),
    }
    prints = {name: volume_print(_grey(values)) for name, values in (heads | altered).items()}
    for name in altered:
        pairs = near_pairs(collect([], [(key, prints[key]) for key in sorted([*heads, name])]), 8, 0.98)
        assert list(zip(pairs["id_a"], pairs["id_b"], strict=True)) == [tuple(sorted(("head 0", name)))], name


def _grey(values: Any) -> np.ndarray:
    return np.rint(255 * (values - values.min()) / np.ptp(values)).astype(np.uint8)
