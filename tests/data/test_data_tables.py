"""Tables as people have them: missing values, ids without extension, paths from elsewhere, columns of folds."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ingest_workspace import CARD, Workspace, refused

from clinprompt.data.patient_ids import patient_key

ROWS = 24


def table(place: Workspace, form: str = "csv", options: dict[str, Any] | None = None, **columns: Any) -> None:
    """A table of images img/0.png … with the columns given, and the card that reads it."""
    for i in range(ROWS):
        place.image(f"img/{i}.png")
    facts = {name: name for name in ("patient", "site", "sex", "age") if name in columns}
    extra = [name for name in columns if name not in {*facts, "path", "label", "split", "fold"}]
    place.card(
        reader={"kind": "table", "file": f"t.{form}"} | (options or {}),
        split={"rule": "stratified"},
        metadata=facts | {"extra": extra},
    )
    frame = pd.DataFrame({"path": [f"img/{i}.png" for i in range(ROWS)], "label": [0, 1] * (ROWS // 2)} | columns)
    if form == "csv":
        frame.to_csv(place.data / "t.csv", index=False)
    else:
        frame.to_parquet(place.data / "t.parquet")


@pytest.mark.parametrize(
    "word", ["NA", "NaN", "nan", "None", "N/A", "n/a", "unknown", "Unknown", "-", "", " ", "null", "<NA>", "?"]
)
def test_what_says_nothing_is_no_patient_and_no_other_fact(place: Workspace, word: str) -> None:
    table(place, patient=["P1", word] * 12, site=[word] * ROWS, sex=[word] * ROWS, age=["3", word] * 12, view=word)
    assert place.ingest() == 0
    frame = place.manifest()
    assert frame["patient"].notna().sum() == 12
    assert frame.loc[frame["path"] == "img/1.png", "patient"].isna().all()
    assert frame[["site", "sex", "view"]].isna().all().all()
    assert frame["age"].notna().sum() == 12


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_patients_as_floats_are_numbers_and_missing_ones_are_none(place: Workspace, form: str) -> None:
    table(place, form, patient=[float(i // 4) if i % 2 else float("nan") for i in range(ROWS)])
    assert place.ingest() == 0
    out = place.manifest().set_index("path")["patient"]
    assert out["img/1.png"] == patient_key().pseudonym("toy", "0") == out["img/3.png"]
    assert out.isna().sum() == 12


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_labels_and_splits_as_floats_match_whole_numbers(place: Workspace, form: str) -> None:
    splits = {"splits": {"train": "1", "val": "2", "test": "3"}, "split": "fold"}
    table(place, form, splits, label=[0.0, 1.0] * 12, fold=[1.0, 1.0, 2.0, 2.0, 3.0, 3.0] * 4)
    place.card(reader={"kind": "table", "file": f"t.{form}"} | splits)
    assert place.ingest() == 0
    frame = place.manifest()
    assert frame["label"].value_counts().to_dict() == {"glioma": 12, "none": 12}
    assert frame["split"].value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}


def test_a_class_may_be_called_none_and_a_missing_label_is_refused(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    table(place, label=["None", "glioma"] * 12)
    assert place.ingest() == 0
    assert place.manifest()["label"].value_counts().to_dict() == {"glioma": 12, "none": 12}
    (place.folder / "out" / "manifest.parquet").unlink()
    table(place, label=["NA", "glioma"] * 12)
    assert place.ingest() == 65
    assert "t.csv row 2: the cell in column 'label' is empty, it says 'NA'" in capsys.readouterr().out


def test_all_missing_files_are_counted_and_the_first_ten_are_named(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    table(place, path=[f"img/{i + 12}" + ".png" * (i < 6) for i in range(ROWS)])
    assert place.ingest() == 66
    message = json.loads(capsys.readouterr().out)["message"]
    assert "t.csv: 18 of 24 files do not exist below" in message
    assert "row 8 'img/18', row 9 'img/19'" in message
    assert "row 17 'img/27' and 8 more" in message
    assert "reader.prefix and reader.suffix" in message


def test_ids_without_folder_and_extension_are_found_by_prefix_and_suffix(place: Workspace) -> None:
    table(place, options={"prefix": "img/", "suffix": ".png"}, path=[str(i) for i in range(ROWS)])
    assert place.ingest() == 0
    assert "img/7.png" in place.manifest()["path"].tolist()


def test_of_several_prefixes_and_suffixes_the_one_with_a_file_is_taken(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"prefix": ["part_1/", "img/"], "suffix": [".jpg", ".png"]}
    table(place, options=options, path=[float(i) for i in range(ROWS)])
    place.image("part_1/3.jpg")
    (place.data / "img/3.png").unlink()
    assert place.ingest() == 0
    assert "part_1/3.jpg" in place.manifest()["path"].tolist()
    place.image("part_1/4.png")
    assert place.ingest() == 65
    assert "'4.0' may be part_1/4.png or img/4.png" in capsys.readouterr().out


def test_an_absolute_path_into_the_root_is_inside(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    table(place, path=[f"{place.data}/img/{i}.png" for i in range(ROWS)])
    assert place.ingest() == 0
    assert "img/7.png" in place.manifest()["path"].tolist()
    (place.folder / "out" / "manifest.parquet").unlink()
    table(place, path=[f"{place.data}/../img/{i}.png" for i in range(ROWS)])
    assert place.ingest() == 65
    assert "leads out of the dataset's folder" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["split", "fold"])
def test_a_column_of_folds_is_nothing_to_a_split_by_rule(place: Workspace, column: str) -> None:
    table(place, options={"split": column}, **{column: [0, 1, 2, 3] * 6})
    assert place.ingest() == 0
    assert set(place.manifest()["split"]) == {"train", "val", "test"}


def test_splits_of_a_table_are_known_by_their_meaning(place: Workspace) -> None:
    table(place, split=["Training", "training set", "VALIDATION", "Test_set"] * 6)
    place.card(reader={"kind": "table", "file": "t.csv"})
    assert place.ingest() == 0
    assert place.manifest()["split"].value_counts().to_dict() == {"train": 12, "val": 6, "test": 6}


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_whatever_their_unicode_form(place: Workspace, forms: tuple[str, str]) -> None:
    on_disk, in_table = (unicodedata.normalize(form, "Höhle") for form in forms)
    place.card(
        classes=[CARD["classes"][0] | {"aliases": [on_disk]}, CARD["classes"][1]],
        reader={"kind": "table", "file": "t.csv", "split": None},
        split={"rule": "stratified"},
    )
    rows = ["path,label"]
    for i in range(12):
        place.image(f"{on_disk}/x{i}{on_disk}.png")
        rows.append(f"{in_table}/x{i}{in_table}.png,{in_table if i % 2 else 'none'}")
    place.table("\n".join(rows), "t.csv")
    assert place.ingest() == 0
    frame = place.manifest()
    assert frame["label"].value_counts().to_dict() == {"glioma": 6, "none": 6}
    assert all((place.data / path).is_file() for path in frame["path"])


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_columns_and_patients_match_whatever_their_unicode_form(place: Workspace, forms: tuple[str, str]) -> None:
    in_card, in_table = (unicodedata.normalize(form, "Größe") for form in forms)
    table(place)
    place.card(
        reader={"kind": "table", "file": "t.csv", "label": in_card, "split": None},
        split={"rule": "stratified"},
        metadata={"patient": f"p{in_card}"},
    )
    rows = [f"img/{i}.png,{i % 2},{unicodedata.normalize(forms[i // 2 % 2], f'Müller {i % 6}')}" for i in range(ROWS)]
    place.table("\n".join([f"path,{in_table} , p{in_table}", *rows]), "t.csv")
    assert place.ingest() == 0
    assert place.manifest()["patient"].nunique() == 6


def test_all_missing_files_of_a_split_file_are_counted(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(4):
        place.image(f"img/{i}.png")
    splits = {s: [[f"{i}.png", 0, "none"] for i in range(8)] for s in ("train", "val", "test")}
    Path(place.data / "s.json").write_text(json.dumps(splits))
    place.card(reader={"kind": "split_json", "file": "s.json", "images": "img"})
    refused(place, capsys, 66, "s.json: 12 of 24 files do not exist", "train[4] '4.png'", "and 2 more")


def test_a_class_that_a_split_by_rule_cannot_spread_is_told_in_a_sentence(
    place: Workspace, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    table(place, label=[1, 1] + [0] * (ROWS - 2), patient=["P0", "P0"] + [f"Q{i}" for i in range(ROWS - 2)])
    assert place.ingest() == 0
    [warning] = json.loads(capsys.readouterr().out)["warnings"]
    assert warning.startswith("The class 'glioma' has no image in ")
    assert "its patients are 1, fewer than the 3 splits" in warning
    assert warning in caplog.text


@pytest.mark.parametrize(("patients", "n"), [(["P1", "NA"] * 12, 12), (["NA"] * ROWS, 24)])
def test_images_of_unknown_patients_are_told_in_a_sentence(
    place: Workspace, capsys: pytest.CaptureFixture[str], patients: list[str], n: int
) -> None:
    table(place, patient=patients)
    assert place.ingest() == 0
    facts = json.loads(capsys.readouterr().out)
    assert f"The patient of {n} of the 24 images is unknown; each is taken for one of its own." in facts["warnings"]
    assert facts["patients"] == (0 if n == ROWS else 1)


def test_columns_that_hold_lists_and_damaged_notes_of_pandas_do_not_matter(place: Workspace) -> None:
    table(place, "parquet", boxes=[[1, 2]] * ROWS)
    place.card(
        reader={"kind": "table", "file": "t.parquet"}, split={"rule": "stratified"}, metadata={"extra": ["boxes"]}
    )
    file = place.data / "t.parquet"
    file.write_bytes(file.read_bytes().replace(b'"index_columns"', b'"index_colum\xff\x00"'))
    assert place.ingest() == 0
    assert set(place.manifest()["boxes"]) == {"[1 2]"}


def test_images_of_one_study_stay_together_where_no_patient_is_known(place: Workspace) -> None:
    table(place, study=[f"S{i // 4}" for i in range(ROWS)])
    card = {"reader": {"kind": "table", "file": "t.csv"}, "split": {"rule": "stratified"}}
    place.card(**card, metadata={"study": "study"})
    assert place.ingest() == 0
    rows = place.manifest()
    assert rows["study"].nunique() == 6
    assert (rows["patient"] == rows["study"]).all()
    assert (rows.groupby("study")["split"].nunique() == 1).all()
    place.card(**card, metadata={"extra": ["study"]})
    assert place.ingest() == 64  # a column of another meaning would be taken for it
