"""From `data.new` to an accepted dataset, without an edit of the card, for folders as people have them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from ingest_workspace import ROOT
from PIL import Image

from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.data.new import main
from clinprompt.data.survey.patients import prefix_of
from components.ingest.__main__ import work as ingest
from components.runner import execute
from components.validate.__main__ import work as validate


class Desk:
    """A project with a folder of images beside it, and what a new user runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.drawn = 0
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["validation"]["min_images_per_class"] = 1
        (folder / "params.yaml").write_text(yaml.safe_dump(params))

    def draw(self, *paths: str) -> None:
        """Smooth random pictures, none like another."""
        for path in paths:
            self.drawn += 1
            noise = np.random.default_rng(self.drawn).integers(0, 256, (6, 6), dtype=np.uint8)
            file = self.images / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC).save(file)

    def new(self, *options: str, name: str = "mine") -> int:
        return main([name, str(self.images), *options])

    def accepted(self, name: str = "mine") -> pd.DataFrame:
        """Ingest and validate with the card as it is: the rows that validation lets through."""
        place = {
            "card": self.folder / "datasets" / f"{name}.yaml",
            "source": self.folder / "data" / name,
            "manifest": self.folder / "ingest" / "manifest.parquet",
            "images": self.folder / "ingest" / "images",
            "params": self.folder / "params.yaml",
        }
        arguments = [word for key, path in place.items() for word in (f"--{key}", str(path))]
        assert execute("ingest", ingest, ["--dataset", name, *arguments], ROOT / "components") == 0
        out = self.folder / "validate"
        place |= {"accepted": out / "m.parquet", "classes": out / "classes.json", "evidence": out / "evidence"}
        place.pop("source")
        arguments = [word for key, path in place.items() for word in (f"--{key}", str(path))]
        assert execute("validate", validate, ["--dataset", name, *arguments], ROOT / "components") == 0
        return read_manifest(place["accepted"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.fixture
def asked(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """The command stops with a question that holds these parts, and writes no card."""

    def check(*parts: str, options: tuple[str, ...] = (), code: int = 64) -> None:
        capsys.readouterr()
        assert desk.new(*options) == code
        question = capsys.readouterr().err
        for part in parts:
            assert part in question
        assert not Path("datasets").exists()

    return check


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
        desk.draw(f"images_part_{i % 2 + 1}/ISIC_{i:04d}.jpg")
        rows.append(f"HAM_{i // 2},ISIC_{i:04d},{('nv', 'mel', 'bkl')[i // 2 % 3]},histo,,male,back")
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    (desk.images / "HAM_metadata.csv").write_text("\n".join([header, *rows]))
    assert desk.new("--table", "HAM_metadata.csv") == 0
    told = capsys.readouterr().out
    assert "image_id names them, dx is the class" in told
    assert "The patient is taken from the column lesion_id" in told
    card = load_card(Path("datasets/mine.yaml"))
    assert card.reader.options["prefix"] == ["images_part_1/", "images_part_2/"]
    frame = desk.accepted()
    assert frame["patient"].nunique() == 18
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
