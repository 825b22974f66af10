"""From `data.new` to an accepted dataset, without an edit of the card, for folders as people have them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk

from clinprompt.data.load import load_card
from clinprompt.data.new import main


def test_images_with_their_masks_beside_them(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("benign", "malignant", "normal"):
        for i in range(1, 9):
            desk.draw(f"{label}/{label} ({i}).png", f"{label}/{label} ({i})_mask.png")
    desk.draw("benign/benign (1)_mask_1.png")
    assert desk.new() == 0
    told = capsys.readouterr().out
    assert "25 images look like masks and are left out (*_mask*)" in told
    assert "3 classes, 24 images" in told
    assert desk.accepted()["label"].value_counts().to_dict() == {"benign": 8, "malignant": 8, "normal": 8}


def test_classes_in_folders_of_organs(desk: Desk, asked: Callable[..., None]) -> None:
    for folder in ("lung_image_sets/lung_aca", "lung_image_sets/lung_n", "colon_image_sets/colon_aca"):
        desk.draw(*(f"lung_colon_image_set/{folder}/{i}.jpeg" for i in range(8)))
    asked(
        "could be several things",
        "classes colon_aca, lung_aca, lung_n in folders that mean nothing: --folders 'lung_colon_image_set/*/{class}'",
        "classes colon_image_sets, lung_image_sets with a folder for each patient",
    )
    assert desk.new("--folders", "lung_colon_image_set/*/{class}") == 0
    assert desk.accepted()["label"].value_counts().to_dict() == {"colon_aca": 8, "lung_aca": 8, "lung_n": 8}


def test_folders_of_patients_in_the_class_folders(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("normal", "tumour"):
        desk.draw(*(f"{label}/{label[0]}{p:03d}/{i}.png" for p in range(6) for i in range(3)))
    assert desk.new() == 0
    told = capsys.readouterr().out
    assert "folders of the form {class}/{patient}" in told
    assert "36 images, 12 patients" in told
    frame = desk.accepted()
    assert frame["patient"].nunique() == 12
    assert frame.groupby("patient")["split"].nunique().max() == 1


def test_a_table_of_ids_beside_two_folders_of_images(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for i in range(36):
        desk.draw(f"HAM10000_images_part_{i % 2 + 1}/ISIC_{i:04d}.jpg")
        sex = ("male", "Female", "unknown")[i // 2 % 3]
        rows.append(f"HAM_{i // 2},ISIC_{i:04d},{('nv', 'mel', 'bkl')[i // 2 % 3]},histo,,{sex},back")
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    (desk.images / "HAM_metadata.csv").write_text("\n".join([header, *rows]))
    assert desk.new() == 0
    told = capsys.readouterr().out
    assert "image_id names them, dx is the class" in told
    assert "The patient is taken from the column lesion_id" in told
    assert "lesion_id may be less than a person" in told
    card = load_card(Path("datasets/mine.yaml"))
    assert card.reader.options["prefix"] == ["HAM10000_images_part_1/", "HAM10000_images_part_2/"]
    frame = desk.accepted()
    assert frame["patient"].nunique() == 18
    assert frame["sex"].value_counts().to_dict() == {"M": 12, "F": 12}
    assert frame["label"].value_counts().to_dict() == {"nv": 12, "mel": 12, "bkl": 12}


def test_three_classes_of_chest_x_rays(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("COVID-19", "NORMAL", "Viral_Pneumonia"):
        desk.draw(*(f"{label}/{i}.png" for i in range(9)))
    (desk.images / "README.md").write_text("x")
    (desk.images / "NORMAL/scan.dcm").write_text("x")
    (desk.images / "empty/empty").mkdir(parents=True)
    assert desk.new("--modality", "chest X-ray") == 0
    told = capsys.readouterr().out
    assert "Files that are no images: 1 .dcm, 1 .md." in told
    assert "No patient is known" in told
    card = load_card(Path("datasets/mine.yaml"))
    assert [info.name for info in card.classes] == ["COVID-19", "normal", "viral pneumonia"]
    assert card.classes[0].phrase == "chest X-ray showing COVID-19"
    assert len(desk.accepted()) == 27


def test_the_line_of_leaks_is_in_the_card_with_its_meaning(desk: Desk) -> None:
    desk.draw(*(f"{label}/{i}.png" for label in "ab" for i in range(4)))
    assert desk.new() == 0
    text = Path("datasets/mine.yaml").read_text()
    assert "# drop_from_train: the image in the lesser split is left out" in text
    assert "\non_leak: fail\n" in text


def test_what_is_in_two_of_the_publisher_s_splits_stops_no_first_run(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.draw(*(f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(8)))
    (desk.images / "train/a/copy.png").write_bytes((desk.images / "test/a/3.png").read_bytes())
    assert desk.new() == 0
    assert "left out of the lesser one (train before val before test) and\nlisted" in capsys.readouterr().out
    assert "\non_leak: drop_from_train\n" in Path("datasets/mine.yaml").read_text()
    assert len(desk.accepted()) == 32


def test_splits_by_meaning_above_and_below_the_classes(desk: Desk) -> None:
    for split in ("training_set", "val_set", "test_set"):
        desk.draw(*(f"above/{split}/{label}/{i}.png" for label in "ab" for i in range(3)))
        desk.draw(*(f"below/{label}/{split}/{i}.png" for label in "ab" for i in range(3)))
    for where in ("above", "below"):
        assert main([where, str(desk.images / where)]) == 0
        assert load_card(Path(f"datasets/{where}.yaml")).split.rule == "given"
        assert desk.accepted(where)["split"].value_counts().to_dict() == {"train": 6, "val": 6, "test": 6}


@pytest.mark.parametrize(("masks", "images"), [("masks", "images"), ("lung masks", "img")])
def test_folders_of_images_beside_folders_of_masks(
    desk: Desk, capsys: pytest.CaptureFixture[str], masks: str, images: str
) -> None:
    desk.draw(*(f"{label}/{kind}/{i}.png" for label in ("sick", "well") for kind in (images, masks) for i in range(6)))
    assert desk.new() == 0
    assert f"12 images look like masks and are left out ({masks})" in capsys.readouterr().out
    assert load_card(Path("datasets/mine.yaml")).reader.options["folders"] == f"{{class}}/{images}"
    assert len(desk.accepted()) == 12
