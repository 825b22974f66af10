"""Studies: folders of slices without a table, columns from headers, and splits that keep a patient's slices whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from desk import Desk
from dicom_workspace import SHARES, pictures
from drawn_dicom import picture, written
from drawn_volumes import slices, write_series
from ingest_workspace import Workspace, refused
from pydicom import dcmread

from clinprompt.data.load import load_card
from clinprompt.data.series import pack_picture
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.slices import measure_slices

LABELS = ("none", "glioma")


def series(folder: Path, number: int, patient: str, depth: int = 3) -> None:
    """A series of noise in a folder of its own: study `number` of a patient."""
    values = np.random.default_rng(number).integers(0, 900, (16, 17, depth)).astype(np.int16)
    datasets = slices(values, series=f"1.2.9.{number}")
    for dataset in datasets:
        dataset.StudyInstanceUID, dataset.PatientID, dataset.Manufacturer = f"1.2.8.{number}", patient, "AB"[number % 2]
    write_series(datasets, folder)


def test_study_series_and_spacing_are_columns_whose_ids_need_the_key(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(place)
    for number, file in enumerate(sorted(place.data.glob("*/*.dcm"))):
        dataset = dcmread(file)
        dataset.PatientID, dataset.StudyInstanceUID = f"MRN{number % 4}", f"1.2.8.{number % 4}"
        tag = "PixelSpacing" if number < 4 else "ImagerPixelSpacing"
        dataset.add_new(tag, "DS" if number else "LO", [0.2, 0.25] if number else ["0", "x"])
        file.write_bytes(written(dataset))
    asked = ["patient", "study", "series", "site", "sex", "age", "pixel_spacing"]
    place.card(split=SHARES, metadata={"dicom": asked})
    assert place.ingest() == 0
    rows = place.manifest()
    assert rows["pixel_spacing"].fillna(0).tolist() == [0] + [0.25] * 7
    assert (rows["study"].nunique(), rows["series"].nunique()) == (4, 8)
    assert rows[["study", "series"]].map(lambda uid: len(uid) == 16).all(axis=None)
    assert not set(rows["study"]) & {*rows["patient"], *rows["series"]}
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", "another key, of at least 32 characters")
    assert place.ingest() == 0
    assert not set(place.manifest()["study"]) & set(rows["study"])
    assert place.manifest()["split"].tolist() == rows["split"].tolist()


def test_where_no_patient_is_known_a_study_stays_together_and_its_known_patient_counts(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        series(place.data / LABELS[number % 2] / f"st{number}", number, f"MRN{number // 6}" if number < 9 else "")
    for file in sorted((place.data / "none" / "st0").iterdir())[1:]:
        dataset = dcmread(file)
        dataset.PatientID = ""
        dataset.save_as(file)
    pattern = {"kind": "folder", "folders": "{class}/{study}"}
    place.card(split=SHARES, reader=pattern, metadata={"dicom": ["patient", "site"]})
    assert place.ingest() == 0
    rows = place.manifest()
    assert len(rows) == 36
    rows["folder"] = rows["path"].str.split("/").str[1]
    of_study = rows.groupby("folder")["patient"].agg(["nunique", "first"])
    assert (of_study["nunique"] == 1).all()
    assert of_study["first"].nunique() == 5  # two patients, and three studies of an unknown one
    assert of_study.loc["st9", "first"] == rows.loc[rows["folder"] == "st9", "study"].iloc[0]
    assert (rows.groupby("patient")["split"].nunique() == 1).all()
    assert "The patient of 11 of the 36 images is unknown, and the study stands for it" in capsys.readouterr().out


def test_headers_makers_are_slices_of_the_evaluation(place: Workspace) -> None:
    for number in range(8):
        series(place.data / LABELS[number // 2 % 2] / f"st{number}", number, f"MRN{number}")
    place.card(
        split=SHARES,
        slices=["site"],
        reader={"kind": "folder", "folders": "{class}/{study}"},
        metadata={"dicom": ["patient", "site"]},
    )
    assert place.ingest() == 0
    rows = place.manifest()
    labels = (rows["label"] == "glioma").to_numpy().astype(np.int64)
    answers = Predictions(labels, np.eye(2)[labels], rows["patient"].to_numpy(str), LABELS)
    found = measure_slices(answers, rows, ["site"], Intervals())
    assert list(found) == ["site=A", "site=B"]


@pytest.mark.parametrize("split", [False, True])
def test_data_new_takes_a_folder_for_each_study_on_the_first_try(
    desk: Desk, capsys: pytest.CaptureFixture[str], split: bool
) -> None:
    for number in range(24):
        above = desk.images / ("train", "val", "test")[number // 2 % 3] if split else desk.images
        series(above / LABELS[number % 2] / f"ST{number:03}", number, f"MRN{number // 6 if not split else number}")
    assert desk.new() == 0
    said = capsys.readouterr().out
    pattern = "{split}/{class}/{study}" if split else "{class}/{study}"
    assert f"folders of the form {pattern}." in said
    assert "24 folders hold one DICOM series each" in said
    assert "its files are taken for pictures. --series volume takes each folder for one volume." in said
    assert f"72 images, {24 if split else 4} patients" in said
    rows = desk.accepted()
    assert len(rows) == 72
    assert (rows.groupby("patient")["split"].nunique() == 1).all()
    assert set(rows["site"]) == {"A", "B"}


def test_data_new_takes_each_series_for_a_volume_where_that_is_asked(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        series(desk.images / LABELS[number % 2] / f"ST{number:03}", number, f"MRN{number}")
    assert desk.new("--series", "volume") == 0
    said = capsys.readouterr().out
    assert "each is taken for one volume. --series slices takes its files for pictures." in said
    assert "6 images, 6 patients" in said
    assert load_card(Path("datasets/mine.yaml")).reader.options == {"series": "volume"}


def test_headers_tell_which_level_holds_the_studies(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):  # names that look like neither ids nor classes
        path = Path(LABELS[number % 2], "abcdefghijkl"[number // 2], "xy"[number % 2], "late")
        series(desk.images / path, number, f"MRN{number // 4}", depth=2)
    assert desk.new() == 0
    assert "of the form {class}/{study}/*/late." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (lambda number, slice_: "ANON", "The headers' PatientID is the same in all images"),
        (lambda number, slice_: f"{number}-{slice_}", "The headers' PatientID differs within a study"),
        (lambda number, slice_: "", "No patient is known: images of one study stay together"),
    ],
)
def test_ids_that_are_no_patients_are_left_to_the_studies(
    desk: Desk, capsys: pytest.CaptureFixture[str], of: Callable[[int, int], str], sentence: str
) -> None:
    for number in range(12):
        folder = desk.images / LABELS[number % 2] / f"ST{number:03}"
        series(folder, number, "")
        for place, file in enumerate(sorted(folder.iterdir())):
            dataset = dcmread(file)
            dataset.PatientID = of(number, place)
            dataset.save_as(file)
    assert desk.new() == 0
    said = capsys.readouterr().out
    assert sentence in said
    assert "12 studies and no patients known" in said
    assert "patient" not in load_card(Path("datasets/mine.yaml")).metadata.dicom


def test_a_broken_value_of_a_header_is_shown_nowhere(
    desk: Desk, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    for number in range(4):
        file = desk.images / LABELS[number % 2] / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = written(picture(np.full((8, 8), number, np.uint16)))
        at = data.index(b"\x20\0\x0e\0UI")
        file.write_bytes(data[:at] + b"\x20\0\x0d\0UI\x08\0Doe-%d" % (4710 + number) + data[at:])  # StudyInstanceUID
    pydicom.config.settings.reading_validation_mode = pydicom.config.WARN  # as in a new process
    assert desk.new() == 0
    said = capsys.readouterr()
    assert "4 studies and no patients known" in said.out
    assert "Doe" not in said.out + said.err + "".join(str(one.message) for one in recwarn)


def test_data_new_says_what_will_stop_ingest(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        file = desk.images / LABELS[number % 2] / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset = picture(np.random.default_rng(number).integers(0, 900, (8, 8), np.uint16))
        dataset.BurnedInAnnotation, dataset.NumberOfFrames = ("YES", 1) if number % 2 else ("NO", 7)
        file.write_bytes(written(dataset))
    assert desk.new() == 0
    said = capsys.readouterr().out
    assert "4 files hold several frames: write dicom: {frames: first}, middle or each into the card." in said
    assert "4 headers say that text is burned into the pixels" in said


def test_a_table_of_slices_has_its_patients_from_the_headers(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["image,label"]
    for number in range(12):
        series(desk.images / f"ST{number}", number, f"MRN{number // 2}", depth=2)
        lines += [f"ST{number}/{slice_:03}.dcm,{('mass', 'clear')[number // 2 % 2]}" for slice_ in range(2)]
    (desk.images / "list.csv").write_text("\n".join(lines))
    assert desk.new() == 0
    assert "24 images, 6 patients" in capsys.readouterr().out
    assert load_card(Path("datasets/mine.yaml")).metadata.dicom[:2] == ["patient", "study"]
    assert len(desk.accepted()) == 24


def test_a_series_beside_the_patients_folders_says_how_its_slices_become_pictures(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        series(place.data / LABELS[number % 2] / f"p{number}", number, "")
    place.card(split=SHARES, reader={"kind": "folder", "folders": "{class}/{patient}"})
    refused(
        place, capsys, 65, "glioma/p1: this folder holds one DICOM series, which is a volume", "reader.series: slices"
    )
    place.card(split=SHARES, reader={"kind": "folder", "folders": "{class}/{patient}", "series": "slices"})
    assert place.ingest() == 0
    assert len(place.manifest()) == 18


def test_one_patient_for_all_is_said_where_no_split_can_be_made(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(place)
    place.card(split=SHARES, metadata={"dicom": ["patient"]})
    refused(
        place, capsys, 65, "split holds no image: the 8 images are 1 group that no split may part (a patient's images"
    )


def test_text_in_the_pixels_is_kept_where_the_card_says_so_and_told(place: Workspace, tmp_path: Path) -> None:
    pictures(place)
    file = place.data / "none" / "0.dcm"
    dataset = dcmread(file)
    dataset.BurnedInAnnotation = "YES"
    file.write_bytes(written(dataset))
    assert place.ingest() == 65
    place.card(split=SHARES, dicom={"burned_in": "keep"})
    assert place.ingest() == 0
    rows = place.manifest().set_index("path")
    assert rows["burned_in_annotation"].to_dict() == dict.fromkeys(rows.index, "not told") | {"none/0.dcm": "YES"}
    assert set(rows["identifying_fields"]) == {"PatientName, PatientID"}
    (tmp_path / "copy").write_bytes(pack_picture(file, "it", load_card(place.folder / "toy.yaml").dicom))
    assert "PatientName" not in dcmread(tmp_path / "copy")
