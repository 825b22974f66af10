"""Near-duplicates: none is missed, copies are found, pictures that merely resemble each other are not."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_dataset import Dataset, encode, picture

from clinprompt.params import ValidationParams
from clinprompt.validation import duplicates
from clinprompt.validation.duplicates import Duplicates, find_duplicates, near_duplicates
from clinprompt.validation.summary import Summary, summarise


def summary_with(hashes: list[int]) -> Summary:
    """Images with these hashes and thumbnails that all correlate perfectly."""
    thumbnails = np.tile(np.arange(16, dtype=np.uint8).reshape(4, 4), (len(hashes), 1, 1))
    ids = [f"{i:04d}" for i in range(len(hashes))]
    return Summary(pd.DataFrame(), ids, np.array(hashes, dtype=np.uint64), thumbnails)


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
        patch.setattr(duplicates, "_ROWS", 4)
        patch.setattr(duplicates, "_COLUMNS", 7)
        patch.setattr(duplicates, "_CHUNK", 3)
        found = near_duplicates(summary_with(hashes), bits, 0.99)
    expected = [
        (f"{a:04d}", f"{b:04d}", (hashes[a] ^ hashes[b]).bit_count())
        for a, b in itertools.combinations(range(len(hashes)), 2)
        if (hashes[a] ^ hashes[b]).bit_count() <= bits
    ]
    assert list(found[["id_a", "id_b", "bits"]].itertuples(index=False, name=None)) == expected


def test_the_correlation_is_pearsons() -> None:
    thumbnails = np.stack([np.asarray(picture(seed, 32)) for seed in (1, 2)])
    summary = Summary(pd.DataFrame(), ["a", "b"], np.zeros(2, np.uint64), thumbnails)
    expected = np.corrcoef(thumbnails[0].ravel(), thumbnails[1].ravel())[0, 1]
    found = near_duplicates(summary, 0, 0.0 if expected > 0 else -1.0)
    assert found["correlation"].item() == pytest.approx(expected, abs=1e-6)
    assert near_duplicates(summary, 0, abs(expected) + 0.01).empty


def test_no_image_or_one_has_no_duplicate() -> None:
    for hashes in ([], [5]):
        found = near_duplicates(summary_with(hashes), 4, 0.9)
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
    pairs = duplicates_in(dataset).pairs
    assert pairs[["path_a", "path_b", "split_a", "split_b", "kind", "same_label"]].values.tolist() == [
        ["test/none/copy.png", "train/glioma/0.png", "test", "train", "near", False]
    ]


def test_a_group_of_identical_files_gives_each_file_a_partner_in_each_split(dataset: Dataset) -> None:
    data = encode(picture(99))
    for path, split in [("a.png", "train"), ("b.png", "train"), ("c.png", "train"), ("d.png", "test")]:
        dataset.put(path, data, split)
    pairs = duplicates_in(dataset).pairs
    found = list(pairs[["path_a", "path_b"]].itertuples(index=False, name=None))
    assert found == [("a.png", "b.png"), ("a.png", "c.png"), ("a.png", "d.png"), ("b.png", "d.png"), ("c.png", "d.png")]
    assert set(pairs["kind"]) == {"exact"}
    assert set(pairs["correlation"]) == {1.0}


def test_processes_change_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, images = dataset.frame(), dataset.folder / "images"
    alone = summarise(frame, images, "auto", LIMITS, workers=1)
    monkeypatch.setattr("clinprompt.validation.summary._WORTH_A_POOL", 1)
    together = summarise(frame, images, "auto", LIMITS, workers=2)
    pd.testing.assert_frame_equal(alone.images, together.images)
    assert alone.ids == together.ids
    np.testing.assert_array_equal(alone.hashes, together.hashes)
    np.testing.assert_array_equal(alone.thumbnails, together.thumbnails)
