"""`data.new` stops with a question where a folder could be several things, and options answer it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk

from clinprompt.data.load import load_card
from clinprompt.data.survey.patients import prefix_of


@pytest.mark.parametrize("name", ["2024-05-02", "2024-13-45", "12", "1e5", "1_000", "no", "null", "0x1F", "12.5"])
def test_a_name_that_yaml_reads_as_something_else_is_refused(name: str, desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{label}/{i}.png" for label in "ab" for i in range(4)))
    assert desk.new(name=name) == 64
    assert not Path("datasets").exists()


def test_ids_in_the_files_names_are_seen_and_offered_as_patients(desk: Desk, asked: Callable[..., None]) -> None:
    for c, label in enumerate(("normal", "tumour")):
        desk.draw(*(f"{label}/p{c}{i // 3:02d}_{i % 3}.png" for i in range(24)))
    asked("16 ids that repeat, as 'p000'", "--patient name", "--patient none")
    assert desk.new("--patient", "name") == 0
    assert load_card(Path("datasets/mine.yaml")).reader.options["patient"] == {"name": "([^_]+)_"}
    assert desk.accepted()["patient"].nunique() == 16
    assert desk.new("--patient", "none", name="other") == 0
    assert "patient" not in load_card(Path("datasets/other.yaml")).reader.options
    assert desk.new("--patient", "(p[0-9])", name="third") == 0
    assert load_card(Path("datasets/third.yaml")).reader.options["patient"] == {"name": "(p[0-9])"}


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ([f"person{i // 2}_bacteria_{i}" for i in range(40)], "([^_]+)_"),
        ([f"IM-{i // 2:04d}-{i:04d}" for i in range(40)], "(.+)-"),
        ([f"p{i // 2}-{i}" for i in range(24)] + [f"x{i}" for i in range(16)], "([^-]+)-|"),
        ([f"ISIC_{i:05d}" for i in range(40)], None),
        ([f"{i}" for i in range(40)], None),
        ([f"benign ({i})" for i in range(40)], None),
        ([f"scan{i}_1" for i in range(40)], None),
        ([f"a{i % 2}_{i}" for i in range(40)], None),
    ],
)
def test_which_beginnings_of_names_are_taken_for_ids(names: list[str], pattern: str | None) -> None:
    found = prefix_of([f"a/{name}.png" for name in names])
    assert (found.pattern if found else None) == pattern


def test_folds_are_a_question_that_options_answer(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"fold_{f}/{label}/{i}.png" for f in range(1, 4) for label in ("a", "b") for i in range(4)))
    asked("fold_1, fold_2, fold_3 look like folds", "--train fold_1 --test fold_3", "--folders '*/{class}'")
    assert desk.new("--train", "fold_1", "--val", "fold_2", "--test", "fold_3") == 0
    assert desk.accepted()["split"].value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}
    assert desk.new("--folders", "*/{class}", name="mixed") == 0
    assert load_card(Path("datasets/mixed.yaml")).split.rule == "stratified"


def test_what_could_be_several_things_is_asked(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{site}/{label}/{i}.png" for site in ("north", "south") for label in ("a", "b") for i in range(3)))
    asked("could be several things", "'{class}/{patient}'", "'{class}/*'", "'*/{class}'")
    desk.draw("north/loose.png")
    asked("images lie 1 and 2 folders deep (in north and in north/a)", "--exclude GLOB", "'{class}/**'")
    assert desk.new("--exclude", "loose*", "--folders", "*/{class}") == 0


def test_a_table_and_classes_in_folders_are_asked(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{label}/{label}{i}.png" for label in ("sick", "well") for i in range(8)))
    rows = [f"{label}{i}.png,{label},P{i // 2}" for label in ("sick", "well") for i in range(8)]
    (desk.images / "list.csv").write_text("\n".join(["name,diagnosis,patient", *rows]))
    (desk.images / "other.csv").write_text("a,b\n1,2\n")
    asked("--table list.csv", "folders of classes (sick, well)")
    assert desk.new("--table", "list.csv") == 0
    asked_columns = desk.new("--table", "list.csv", "--patient", "pid", name="other")
    assert asked_columns == 64
    assert desk.new("--folders", "{class}", name="folders") == 0
    assert desk.accepted()["patient"].nunique() == 4


def test_a_table_whose_label_is_not_clear_is_asked(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"img/{i}.png" for i in range(12)))
    rows = [f"{i}.0,{i % 3},{'yes' if i % 2 else 'no'}" for i in range(12)]
    (desk.images / "list.csv").write_text("\n".join(["id,grade,ill", *rows]))
    asked("which column is the class?", "grade (3 values), ill (2 values)", options=("--table", "list.csv"))
    assert desk.new("--table", "list.csv", "--label", "grade") == 0
    assert [info.id for info in load_card(Path("datasets/mine.yaml")).classes] == ["0", "1", "2"]
    assert len(desk.accepted()) == 12


def test_folders_of_patients_alone_are_no_classes(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"patient_{p}/{i}.png" for p in range(6) for i in range(2)))
    asked("look like patients, not like classes", "--table")


def test_what_is_said_of_the_files_is_what_ingest_counts(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.draw(*(f"{label}/{i}.png" for label in "ab" for i in range(6)))
    (desk.images / "a/notes.txt").write_text("x")
    assert desk.new() == 0
    assert "Files that are no images: 1 .txt." in capsys.readouterr().out
    desk.accepted()
    assert json.loads(capsys.readouterr().out.splitlines()[0])["skipped"] == {".txt": 1}


def test_a_folder_beside_the_splits_is_asked_for(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{s}/{c}/{i}.png" for s in ("TRAIN", "TEST", "TEST_SIMPLE") for c in "ab" for i in range(9)))
    asked("TEST, TRAIN are taken for splits, but not TEST_SIMPLE", "--exclude 'TEST_SIMPLE'")
    assert desk.new("--exclude", "TEST_SIMPLE") == 0
    assert len(desk.accepted()) == 36


def test_a_training_table_with_its_images_needs_no_answer(desk: Desk) -> None:
    desk.draw(*(f"train_images/{i:x}.png" for i in range(32)), *(f"test_images/t{i}.png" for i in range(8)))
    (desk.images / "train.csv").write_text("\n".join(["id_code,diagnosis", *(f"{i:x},{i % 2}" for i in range(32))]))
    (desk.images / "test.csv").write_text("\n".join(["id_code", *(f"t{i}" for i in range(8))]))
    (desk.images / "broken.csv").write_bytes(b"\xff\xfe\x00")
    assert desk.new() == 0
    options = load_card(Path("datasets/mine.yaml")).reader.options
    assert (options["file"], options["prefix"], options["suffix"]) == ("train.csv", "train_images/", ".png")
    assert len(desk.accepted()) == 32


@pytest.mark.parametrize(
    ("options", "reader", "patients"),
    [
        (("--patient", "folder"), {"patient": "folder"}, 8),
        ((), {"patient": "folder"}, 8),
        (("--patient", "none"), {"folders": "{class}/*"}, 0),
        (("--folders", "{class}/{patient}"), {"patient": "folder"}, 8),
    ],
)
def test_whether_folders_are_patients_is_the_user_s_to_say(
    desk: Desk, options: tuple[str, ...], reader: dict[str, str], patients: int
) -> None:
    desk.draw(*(f"{label}/{label}{p:02d}/{i}.png" for label in ("a", "b") for p in range(4) for i in range(2)))
    assert desk.new(*options) == 0
    assert load_card(Path("datasets/mine.yaml")).reader.options == reader
    assert desk.accepted()["patient"].nunique() == patients


def test_a_folder_of_masks_among_the_classes_is_asked_for(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{label}/{i}.png" for label in ("sick", "well", "masks [old]") for i in range(6)))
    asked("'masks [old]' looks like one of masks", "--exclude 'masks [[]old]'", "--keep-masks")
    assert desk.new("--exclude", "masks [[]old]") == 0
    assert len(desk.accepted()) == 12
    assert desk.new("--keep-masks", name="kept") == 0
    assert len(load_card(Path("datasets/kept.yaml")).classes) == 3


def test_many_folders_with_numbers_for_names_are_no_classes(desk: Desk, asked: Callable[..., None]) -> None:
    desk.draw(*(f"{p:05d}/{i}.png" for p in range(24) for i in range(2)))
    asked("look like patients, not like classes", "--folders '{class}'")
    assert desk.new("--folders", "{class}") == 0
