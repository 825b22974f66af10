"""Drawn heads go through the real graph to a champion that reads NIfTI files and zipped DICOM series."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.e2e

DATASET = "brain-phantom-3d"


def small_params(params: Any) -> None:
    params["datasets"] = [DATASET]
    params["backbone"]["name"] = "demo-m3d"
    params["candidates"] |= {"methods": ["zero_shot", "deft_ad"], "seeds": [1]}
    params["methods"] = {"deft_ad": {"epochs": 3}}
    params["gate"]["min_patients_per_class"] = 1
    params["gate"]["rules"] = [
        {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.0},
        {"kind": "not_worse_than_champion", "margin": 0.02},
    ]
    params["protocols"]["datasets"] = [DATASET]


def as_series(volume: Path, target: Path) -> None:
    """Write the volume as a zip of a DICOM series, a file for each slice."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    image: Any = nibabel.as_closest_canonical(nibabel.load(volume))
    values, (right, front, up) = np.asanyarray(image.dataobj), image.header.get_zooms()
    series = generate_uid()
    with zipfile.ZipFile(target, "w") as archive:
        for z in range(values.shape[2]):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
            meta.MediaStorageSOPInstanceUID = generate_uid()
            plane = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
            plane.SOPClassUID, plane.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
            plane.SeriesInstanceUID, plane.Modality, plane.PatientName = series, "MR", "Somebody^Else"
            # DICOM's patient axes are left, posterior, superior: this one's rows run to the left and its columns back.
            pixels = values[::-1, ::-1, z].T.astype(np.int16)
            plane.Rows, plane.Columns = pixels.shape
            plane.PixelSpacing, plane.SliceThickness = [float(front), float(right)], float(up)
            plane.ImageOrientationPatient, plane.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, z * float(up)]
            plane.SamplesPerPixel, plane.PhotometricInterpretation = 1, "MONOCHROME2"
            plane.BitsAllocated, plane.BitsStored, plane.HighBit, plane.PixelRepresentation = 16, 16, 15, 1
            plane.PixelData = pixels.tobytes()
            written = io.BytesIO()
            plane.save_as(written, enforce_file_format=True)
            archive.writestr(f"slice{z:03d}.dcm", written.getvalue())


@pytest.fixture(scope="module")
def finished(make_workspace: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    workspace = make_workspace(tmp_path_factory.mktemp("volumes") / "project")
    workspace.edit("params.yaml", small_params)
    smaller = {"subjects_per_class": 36, "size": 32}
    workspace.edit(f"datasets/{DATASET}.yaml", lambda card: card["reader"].update(smaller))
    done = workspace.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def load(workspace: Any, image: Path) -> Any:
    shown = workspace.run("python", "-m", "registry", "load", DATASET, "--image", str(image), "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def test_a_champion_predicts_class_and_score_from_both_kinds_of_files(finished: Any, tmp_path: Path) -> None:
    runs = finished.folder / "runs" / DATASET
    decision = json.loads((runs / "gate/decision.json").read_text())
    assert decision["verdict"] == "accepted"
    volume = min((finished.folder / "data" / DATASET).glob("*.nii.gz"))
    as_series(volume, tmp_path / "series.zip")
    nifti, dicom = load(finished, volume), load(finished, tmp_path / "series.zip")
    assert set(nifti["prediction"]) == {"nc", "mci", "ad"}
    assert dicom["prediction"] == pytest.approx(nifti["prediction"], abs=1e-5)
    if decision["chosen"]["candidate"] == "deft_ad":
        assert 0 <= nifti["estimates"]["mmse_estimate"] <= 30
        assert dicom["estimates"] == pytest.approx(nifti["estimates"], abs=1e-4)


def test_the_score_is_measured_and_reported(finished: Any) -> None:
    runs = finished.folder / "runs" / DATASET
    metrics = json.loads((runs / "metrics/deft_ad-1.json").read_text())
    assert metrics["score"]["name"] == "MMSE"
    assert metrics["score"]["n"] + metrics["score"].get("missing", 0) == len(rows_of_test(runs))
    assert {key.split("=")[0] for key in metrics["score"]["slices"]} == {"site", "sex", "age_band"}
    frame = pd.read_parquet(runs / "evaluate/deft_ad-1/predictions.parquet")
    assert frame["score_estimate"].between(0, 30).all()
    assert (runs / "evaluate/deft_ad-1/plots/score.png").is_file()
    assert "score" not in json.loads((runs / "metrics/zero_shot-1.json").read_text())


def test_the_report_shows_volumes_and_where_the_evidence_lies(finished: Any) -> None:
    runs = finished.folder / "runs" / DATASET
    page = (runs / "report.html").read_text()
    assert "Evidence inside the marked regions" in page
    shares = pd.read_csv(runs / "explain/regions.csv")
    assert shares["class"].tolist() == ["ad", "mci", "nc", "all classes"]
    index = json.loads((runs / "explain/index.json").read_text())
    assert {"attention.png", "regions.csv", "features.png"} <= {item["file"] for item in index["items"]}


def test_a_second_run_decides_and_registers_nothing_new(finished: Any) -> None:
    done = finished.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("> python -m components.") == 3  # lock, gate and promote
    assert "Running stage 'tune" not in done.stdout


def rows_of_test(runs: Path) -> pd.DataFrame:
    """The manifest's test rows."""
    manifest = pd.read_parquet(runs / "validate/manifest.parquet")
    return manifest[manifest["split"] == "test"]
