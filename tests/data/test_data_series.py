"""DICOM series as folders or zips: taken in as one image each, without who the patient is."""

import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from drawn_volumes import PATIENT, drawn, nifti, slices, write_series, zipped
from ingest_workspace import Workspace, refused

from clinprompt.data.codecs import decode_image

SPLIT = {"rule": "stratified", "fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}


def heads(place: Workspace) -> None:
    """Eight series of two classes, each in a folder of its own."""
    for number in range(8):
        label = "glioma" if number % 2 else "none"
        write_series(slices(drawn((6, 7, 8), number)), place.data / label / f"scan{number}")
    place.card(split=SPLIT, reader={"kind": "folder", "folders": "{class}"})


def copies(place: Workspace) -> list[bytes]:
    return [file.read_bytes() for file in sorted((place.folder / "out" / "images").rglob("*.zip"))]


def test_a_folder_of_dicom_files_is_one_image_without_the_patient(place: Workspace) -> None:
    heads(place)
    assert place.ingest() == 0
    assert list(place.manifest()["path"])[:2] == ["glioma/scan1", "glioma/scan3"]
    assert len(copies(place)) == 8
    for data in copies(place):
        for word in (PATIENT, "4711", "1.2.3.1", "pydicom", "PYDICOM"):
            assert word.encode() not in data
    upright = {decode_image(nifti(drawn((6, 7, 8), number))).values.tobytes() for number in range(8)}
    assert {decode_image(data).values.tobytes() for data in copies(place)} == upright


def test_names_and_order_of_the_files_decide_nothing_and_zips_are_packed_anew(place: Workspace) -> None:
    heads(place)
    assert place.ingest() == 0
    before = copies(place)
    for folder in list(place.data.glob("*/scan*")):
        files = sorted(folder.iterdir())
        with zipfile.ZipFile(f"{folder}.zip", "w") as archive:
            for number, file in enumerate(reversed(files)):
                archive.write(file, f"Doe/{number}")
        shutil.rmtree(folder)
    assert place.ingest() == 0
    assert copies(place) == before


def test_a_table_may_name_folders_of_series(place: Workspace) -> None:
    rows = []
    for number in range(8):
        write_series(slices(drawn((6, 7, 8), number)), place.data / "scans" / f"{number}")
        rows.append({"path": f"scans/{number}", "label": "01"[number % 2]})
    pd.DataFrame(rows).to_csv(place.data / "manifest.csv", index=False)
    place.card(split=SPLIT, reader={"kind": "table"})
    assert place.ingest() == 0
    assert len(copies(place)) == 8


def test_a_series_that_is_no_volume_stops_ingest_and_leaves_nothing(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    heads(place)
    (place.data / "none" / "scan2" / "003.dcm").unlink()
    refused(place, capsys, 65, "none/scan2: slices are missing or unequally apart (from 1 to 2 mm).")


def test_text_burned_into_the_pixels_stops_ingest(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    heads(place)
    datasets = slices(drawn((6, 7, 8), 0))
    datasets[0].BurnedInAnnotation = "YES"
    write_series(datasets, place.data / "none" / "scan0")
    refused(place, capsys, 65, "text is burned into its pixels")


def test_a_zip_of_other_files_is_no_image(place: Workspace) -> None:
    heads(place)
    with zipfile.ZipFile(place.data / "download.zip", "w") as archive:
        archive.writestr("readme.txt", "not a series")
    (place.data / "none" / "whole.zip").write_bytes(zipped(slices(drawn((6, 7, 8), 99))))
    assert place.ingest() == 0
    assert "none/whole.zip" in set(place.manifest()["path"])
    assert len(place.manifest()) == 9


def test_a_link_out_of_the_dataset_is_refused(
    place: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads(place)
    outside = write_series(slices(drawn((6, 7, 8), 5))[:1], tmp_path / "elsewhere") / "000.dcm"
    (place.data / "none" / "scan2" / "000.dcm").unlink()
    (place.data / "none" / "scan2" / "000.dcm").symlink_to(outside)
    refused(place, capsys, 65, "holds a link that leads out of the dataset's folder")
