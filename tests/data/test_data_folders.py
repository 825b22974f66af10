"""Folders as people have them: what the levels mean, and one sentence where nobody can know."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from ingest_workspace import CARD, Workspace, refused

from clinprompt.data.layouts.words import are_folds, mask_marks, split_of
from clinprompt.data.load import load_card
from clinprompt.data.patient_ids import patient_key
from clinprompt.errors import BadParams

LABELS = ("glioma", "none")


def fill(place: Workspace, *folders: str, n: int = 3) -> None:
    for folder in folders:
        for i in range(n):
            place.image(f"{folder}/{i}.png")


def card(place: Workspace, rule: str = "stratified", **options: Any) -> None:
    place.card(reader={"kind": "folder", **options}, split={"rule": rule})


@pytest.mark.parametrize("options", [{"patient": "folder"}, {"folders": "{class}/{patient}"}])
def test_folders_in_the_class_folders_are_patients_where_the_card_says_so(
    place: Workspace, options: dict[str, Any]
) -> None:
    card(place, **options)
    fill(place, *(f"{label}/{label[0]}{i}" for label in LABELS for i in range(5)), n=4)
    assert place.ingest() == 0
    frame = place.manifest()
    assert frame["patient"].nunique() == 10
    assert set(frame["patient"][frame["path"].str.startswith("glioma/g3/")]) == {patient_key().pseudonym("toy", "g3")}
    assert frame.groupby("patient")["split"].nunique().max() == 1


def test_patients_may_stand_above_the_classes_and_below_splits(place: Workspace) -> None:
    card(place, "given", folders="{split}/{patient}/{class}")
    fill(place, *(f"{split}/{split}{i}/{c}" for split in ("Train", "val", "test") for i in range(2) for c in LABELS))
    assert place.ingest() == 0
    assert place.manifest()["patient"].nunique() == 6


def test_a_folder_that_says_unknown_is_no_patient(place: Workspace) -> None:
    card(place, patient="folder")
    fill(place, *(f"{label}/{patient}" for label in LABELS for patient in ("a", "b", "c", "Unknown")))
    assert place.ingest() == 0
    frame = place.manifest()
    assert frame["patient"][frame["path"].str.contains("Unknown")].isna().all()
    assert frame["patient"].nunique() == 3


def test_patients_stand_in_the_files_names_where_the_card_says_so(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    card(place, patient={"name": "(p[0-9]+)_"})
    for label in LABELS:
        for i in range(12):
            place.image(f"{label}/p{i // 2}{label[0] == 'g':d}_{i}.png")
    assert place.ingest() == 0
    assert json.loads(capsys.readouterr().out)["patients"] == 12
    shutil.rmtree(place.folder / "out")
    place.image("none/other.png")
    refused(place, capsys, 65, "none/other.png: the name does not begin as reader.patient.name", "(p[0-9]+)_")
    card(place, patient={"name": "(p[0-9]+)_|"})
    assert place.ingest() == 0
    assert place.manifest().set_index("path").loc["none/other.png", ["patient"]].isna().all()


@pytest.mark.parametrize(
    ("splits", "form"),
    [
        (("training_set", "valid_set", "test_set"), "{split}/{label}"),
        (("Train", "Validation images", "TestData"), "{split}/{label}"),
        (("train", "val", "test"), "{label}/{split}"),
    ],
)
def test_splits_are_known_by_their_meaning_above_and_below_the_classes(
    place: Workspace, splits: tuple[str, ...], form: str
) -> None:
    fill(place, *(form.format(split=split, label=label) for split in splits for label in LABELS))
    assert place.ingest() == 0
    assert place.manifest().groupby(["split", "label"]).size().to_dict() == {
        (split, label): 3 for split in ("train", "val", "test") for label in LABELS
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training", "train"), ("train_set", "train"), ("TRAIN images", "train"), ("ValidationDataSet", "val"),
        ("dev", "val"), ("test-set", "test"), ("trained", None), ("testis", None), ("contest", None), ("set", None),
        ("train 2", None), ("images", None),
    ],
)  # fmt: skip
def test_what_a_name_means_as_a_split(name: str, split: str | None) -> None:
    assert split_of(name, None) == split


def test_folds_are_splits_or_nothing_as_the_card_says(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    fill(place, *(f"fold{i}/{label}" for i in range(1, 6) for label in LABELS))
    assert are_folds(["fold_1", "Fold 2"])
    assert not are_folds(["fold1"])
    refused(place, capsys, 65, "'fold1' is no class", "{train: [fold1, fold2, fold3], val: fold4, test: fold5}")
    card(place, "given", splits={"train": ["fold1", "fold2", "fold3"], "val": "fold4", "test": "fold5"})
    assert place.ingest() == 0
    assert place.manifest()["split"].value_counts().to_dict() == {"train": 18, "val": 6, "test": 6}
    card(place, folders="*/{class}")
    assert place.ingest() == 0
    assert len(place.manifest()) == 30


def test_folders_around_the_classes_are_passed_where_the_pattern_says_so(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(place, "all/tumour_sets/glioma", "all/other_sets/none", n=10)
    card(place)
    refused(place, capsys, 65, "'all' is no class", "reader.folders: '*/*/{class}'")
    card(place, folders="all/*/{class}")
    assert place.ingest() == 0
    assert place.manifest()["label"].value_counts().to_dict() == {"glioma": 10, "none": 10}
    card(place, folders="some/*/{class}")
    shutil.rmtree(place.folder / "out")
    capsys.readouterr()
    refused(place, capsys, 65, "all: is not the folder 'some'")


@pytest.mark.parametrize(
    ("folder", "advice"),
    [
        ("deeper", ("reader.patient: folder", "'{class}/**'", "reader.exclude: ['deeper']")),
        ("masks", ("reader.folders: '{class}/images'", "reader.exclude: ['masks']")),
        ("images", ("reader.folders: '{class}/images'",)),
    ],
)
def test_folders_below_the_classes_are_never_flattened_without_a_word(
    place: Workspace, capsys: pytest.CaptureFixture[str], folder: str, advice: tuple[str, ...]
) -> None:
    card(place)
    fill(place, *LABELS, n=10)
    for label in LABELS:
        if folder == "masks":
            (place.data / label).rename(place.data / "images")
            (place.data / label).mkdir()
            (place.data / "images").rename(place.data / label / "images")
    fill(place, f"glioma/{folder}")
    refused(place, capsys, 65, "lies deeper than '{class}'", *advice)


def test_any_number_of_folders_is_passed_where_the_pattern_says_so(place: Workspace) -> None:
    card(place, folders="{class}/**")
    fill(place, "glioma/a/b", "glioma", "none/c", "none", n=5)
    assert place.ingest() == 0
    assert len(place.manifest()) == 20


@pytest.mark.parametrize("pattern", ["{class}/images", "{class}/**", "{class}/*"])
def test_folders_of_masks_are_no_images(place: Workspace, capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    fill(place, *(f"{label}/{kind}" for label in LABELS for kind in ("images", "lung masks")), n=8)
    card(place, folders=pattern)
    refused(place, capsys, 65, "lung masks", "exclude: ['lung masks']")
    card(place, folders=pattern, exclude=["lung masks"])
    capsys.readouterr()
    assert place.ingest() == 0
    assert (place.manifest()["path"].str.contains("/images/")).all()
    assert json.loads(capsys.readouterr().out)["excluded"] == 16


@pytest.mark.parametrize("mark", ["_mask", "_mask_1", " segmentation", "-GT"])
def test_masks_beside_their_images_are_refused_until_the_card_decides(
    place: Workspace, capsys: pytest.CaptureFixture[str], mark: str
) -> None:
    card(place)
    fill(place, *LABELS, n=8)
    for i in range(8):
        place.image(f"glioma/{i}{mark}.png")
    glob = f"*{mark.removesuffix('_1')}*"
    refused(place, capsys, 65, "looks like a mask of 0 beside it, as do 7 others", glob, "reader.masks: keep")
    card(place, exclude=[glob])
    assert place.ingest() == 0
    assert len(place.manifest()) == 16
    card(place, masks="keep")
    assert place.ingest() == 0
    assert len(place.manifest()) == 24


def test_only_what_stands_beside_its_image_looks_like_a_mask() -> None:
    assert mask_marks(["a", "a_mask", "mask_a", "b_mask", "amask"]) == {
        "a_mask": ("a", "*_mask*"), "mask_a": ("a", "mask_*"), "amask": ("a", "*mask*"),
    }  # fmt: skip
    assert mask_marks(["1", "2", "1_2", "12", "masked", "a_marked"]) == {}


def test_globs_leave_out_files_and_folders_by_name_and_by_path(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    card(place, exclude=["thumb*", "none/old/*", "extra"])
    fill(place, *LABELS, "none/old", "extra", n=8)
    place.image("glioma/Thumb_1.png")
    assert place.ingest() == 0
    assert json.loads(capsys.readouterr().out)["excluded"] == 17
    assert len(place.manifest()) == 16


def test_folders_without_images_are_no_classes_and_other_files_are_counted_by_suffix(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    card(place)
    fill(place, *LABELS, n=8)
    (place.data / "docs/empty").mkdir(parents=True)
    for name in ("docs/a.TXT", "docs/b.txt", "none/scan.dcm", "none/README", ".hidden"):
        (place.data / name).write_text("x")
    assert place.ingest() == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["skipped"] == {".dcm": 1, ".txt": 2, "hidden": 1, "without suffix": 1}


def test_names_are_compared_whatever_their_unicode_form(place: Workspace) -> None:
    composed, apart = (unicodedata.normalize(form, "Höhle") for form in ("NFC", "NFD"))
    classes = [CARD["classes"][0], {"id": "cave", "name": "cave", "phrase": "a cave", "aliases": [composed]}]
    place.card(
        classes=classes,
        reader={"kind": "folder", "splits": {"train": apart, "val": "v", "test": "t"}, "exclude": [f"{apart}*.png"]},
    )
    fill(place, *(f"{split}/{label}" for split in (composed, "v", "t") for label in (apart, "glioma")))
    place.image(f"v/glioma/{composed}.png")
    assert place.ingest() == 0
    assert place.manifest()["label"].value_counts().to_dict() == {"cave": 9, "glioma": 9}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"folders": "{split}/x"}, "{class} must stand in it once"),
        ({"folders": "{class}/{fold}"}, "'{fold}' is none of {split}, {class}, {patient}"),
        ({"folders": "**/{class}"}, "** goes last"),
        ({"folders": "../{class}"}, "without a name"),
        ({"folders": "{class}/{patient}", "patient": "folder"}, "remove `patient`"),
        ({"patient": {"name": "p[0-9]+"}}, "must have one group in parentheses"),
        ({"patient": {"name": "(p"}}, "is no regular expression"),
        ({"patient": "folders"}, "reader.patient"),
        ({"masks": "drop"}, "reader.masks"),
        ({"splits": {"train": ["a", "b"], "test": "A"}}, "two splits have the same word"),
    ],
)
def test_options_that_make_no_sense_are_named(place: Workspace, options: dict[str, Any], sentence: str) -> None:
    card(place, **options)
    with pytest.raises(BadParams) as caught:
        load_card(Path(place.folder / "toy.yaml"))
    assert sentence in str(caught.value)


def test_a_glob_of_a_folder_may_end_with_a_slash_and_folders_may_lie_deep(place: Workspace) -> None:
    card(place, folders="{class}/**", exclude=["old/"])
    deep = "/".join("abcdefgh"[i % 8] for i in range(300))
    fill(place, *LABELS, "none/a/old", f"none/{deep}", n=6)
    assert place.ingest() == 0
    paths = place.manifest()["path"]
    assert len(paths) == 18
    assert paths.str.contains(deep).sum() == 6
