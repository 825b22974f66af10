"""Near-duplicates: none is missed, copies are found, pictures that merely resemble each other are not."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_dataset import Dataset, encode, picture

from clinprompt.data.near_duplicates import pairs
from clinprompt.data.near_duplicates.fingerprint import collect
from clinprompt.params import ValidationParams
from clinprompt.validation.duplicates import Duplicates, find_duplicates
from clinprompt.validation.summary import summarise

LIMITS = ValidationParams(
    min_side=16,
    max_pixels=10**6,
    min_images_per_class=5,
    near_duplicate_bits=8,
    near_duplicate_correlation=0.98,
)


def duplicates_in(dataset: Dataset) -> Duplicates:
    frame = dataset.frame()
    summary = summarise(frame, dataset.folder / "images", "auto", LIMITS)
    return find_duplicates(frame, summary, LIMITS.near_duplicate_bits, LIMITS.near_duplicate_correlation)


@settings(deadline=None, max_examples=60)
@given(
    bases=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    flips=st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=20)), max_size=40),
    bits=st.integers(0, 16),
)
def test_every_pair_within_the_bits_is_found(bases: list[int], flips: list[tuple[int, set[int]]], bits: int) -> None:
    near_bases = [bases[which % len(bases)] ^ sum(1 << bit for bit in where) for which, where in flips]
    hashes = bases + near_bases
    with pytest.MonkeyPatch.context() as patch:  # so that pairs straddle the blocks
        patch.setattr(pairs, "_ROWS", 4)
        patch.setattr(pairs, "_COLUMNS", 7)
        found = sorted(
            (a, b)
            for one, other in pairs.hash_pairs(np.array(hashes, dtype=np.uint64), bits)
            for a, b in zip(one, other, strict=True)
        )
    expected = [
        (a, b) for a, b in itertools.combinations(range(len(hashes)), 2) if (hashes[a] ^ hashes[b]).bit_count() <= bits
    ]
    assert found == expected


def test_no_image_or_one_has_no_duplicate() -> None:
    for count in (0, 1):
        rows = [(f"{n}", 5, np.asarray(picture(1, 64)), False) for n in range(count)]
        found = pairs.near_pairs(collect(rows), 4, 0.9)
        assert found.empty
        assert list(found.columns) == ["id_a", "id_b", "bits", "correlation"]


def test_pictures_that_differ_are_no_duplicates(dataset: Dataset) -> None:
    assert duplicates_in(dataset).pairs.empty


@pytest.mark.parametrize("how", ["jpeg", "smaller", "darker", "noise"])
def test_an_altered_copy_is_a_near_duplicate(dataset: Dataset, how: str) -> None:
    original = picture(1)
    noise = np.random.default_rng(0).integers(-4, 5, (48, 48))
    copies = {
        "jpeg": encode(original, "jpeg", quality=60),
        "smaller": encode(original.resize((36, 36))),
        "darker": encode(original.point(lambda v: v * 0.7 + 10)),
        "noise": encode(Image.fromarray(np.clip(np.asarray(original) + noise, 0, 255).astype(np.uint8))),
    }
    dataset.put("train/glioma/0.png", encode(original))
    dataset.put("test/none/copy.png", copies[how], "test", "none")
    found_pairs = duplicates_in(dataset).pairs
    assert found_pairs[["path_a", "path_b", "split_a", "split_b", "kind", "same_label"]].values.tolist() == [
        ["test/none/copy.png", "train/glioma/0.png", "test", "train", "near", False]
    ]


def test_a_group_of_identical_files_gives_each_file_a_partner_in_each_split(dataset: Dataset) -> None:
    data = encode(picture(99))
    for path, split in [("a.png", "train"), ("b.png", "train"), ("c.png", "train"), ("d.png", "test")]:
        dataset.put(path, data, split)
    found_pairs = duplicates_in(dataset).pairs
    found = list(found_pairs[["path_a", "path_b"]].itertuples(index=False, name=None))
    assert found == [("a.png", "b.png"), ("a.png", "c.png"), ("a.png", "d.png"), ("b.png", "d.png"), ("c.png", "d.png")]
    assert set(found_pairs["kind"]) == {"exact"}
    assert set(found_pairs["correlation"]) == {1.0}


def test_processes_change_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, images = dataset.frame(), dataset.folder / "images"
    alone = summarise(frame, images, "auto", LIMITS, workers=1)
    monkeypatch.setattr("clinprompt.validation.summary._WORTH_A_POOL", 1)
    together = summarise(frame, images, "auto", LIMITS, workers=2)
    pd.testing.assert_frame_equal(alone.images, together.images)
    assert alone.prints.ids == together.prints.ids
    np.testing.assert_array_equal(alone.prints.hashes, together.prints.hashes)
    np.testing.assert_array_equal(alone.prints.thumbnails, together.prints.thumbnails)
