"""A folder of DICOM pictures goes from `data.new` to a champion that reads such; no output names a patient.

Two of its classes are novel, and the gate asks for their harmonic mean, too.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_dicom import PATIENT, picture, written
from pydicom import dcmread

pytestmark = pytest.mark.e2e

DATASET = "films"
CLASSES = ("normal", "pneumonia")
NOVEL = ("effusion", "nodule")


def draw(folder: Path) -> None:
    """Patients with a film of 12 bits each, dark low or dark high, of a class's own brightness; a hundred have one of
    `CLASSES`."""
    for number in range(180):
        label = number % 2
        rng = np.random.default_rng(number)
        values = (rng.integers(0, 900, (8, 8)) + 500 + 2000 * label).astype(np.uint16).repeat(8, 0).repeat(8, 1)
        dataset = picture(values, BitsStored=12, WindowCenter=2048, WindowWidth=4096, PatientID=f"MRN{number:05}")
        if number % 3 == 0:
            dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME1", (4095 - values).tobytes()
        dataset.SeriesInstanceUID, dataset.Manufacturer = f"1.2.3.4711.{number}", "AB"[number % 4 // 2]
        dataset.PatientSex, dataset.PatientAge = "FM"[number % 4 // 2], f"0{20 + number % 70}Y"
        file = folder / (CLASSES if number < 100 else NOVEL)[label] / f"IM{number:05}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written(dataset))


def set_apart(card: Any) -> None:
    """Make some of its classes novel."""
    card["novel_classes"] = [one for one in card["classes"] if one["id"] in NOVEL]
    card["classes"] = [one for one in card["classes"] if one["id"] in CLASSES]


@pytest.fixture(scope="module")
def finished(make_workspace: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    workspace = make_workspace(tmp_path_factory.mktemp("films") / "project")
    films = workspace.folder.parent / DATASET
    draw(films)
    new = workspace.run("python", "-m", "clinprompt.data.new", DATASET, str(films))
    assert new.returncode == 0, new.stdout + new.stderr
    asked = {"dicom": ["patient", "site", "sex", "age"]}
    workspace.edit(f"datasets/{DATASET}.yaml", lambda card: card.update(metadata=asked, dicom={"frames": "middle"}))
    workspace.edit(f"datasets/{DATASET}.yaml", set_apart)
    workspace.edit("params.yaml", lambda params: params.update(datasets=[DATASET]))
    rule = {"kind": "novel_harmonic_mean", "at_least": 0.01}
    workspace.edit("params.yaml", lambda params: params["gate"]["rules"].append(rule))
    workspace.edit("params.yaml", lambda params: params["protocols"].update(datasets=[DATASET]))
    done = workspace.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace


def test_the_champion_gives_the_evaluated_probabilities_from_the_original_files(finished: Any) -> None:
    run = finished.folder / "runs" / DATASET
    decision = json.loads((run / "gate/decision.json").read_text())
    assert decision["verdict"] == "accepted"
    assert [check["rule"] for check in decision["checks"]].count("novel_harmonic_mean") == 1
    assert json.loads((run / "promote/receipt.json").read_text())["action"] == "promoted"
    chosen = decision["chosen"]["folder"]
    assert yaml.safe_load((run / "tune" / chosen / "model.yaml").read_text())["dicom"] is True
    evaluated = pd.read_parquet(run / "evaluate" / chosen / "predictions.parquet").set_index("path")
    assert set(evaluated.loc[evaluated["split"] == "novel", "label"]) == set(NOVEL)
    evaluated = evaluated[evaluated["split"] != "novel"]
    for dark_high in (True, False):
        path = next(path for path in evaluated.index if (int(path[-9:-4]) % 3 == 0) is dark_high)
        file = finished.folder.parent / DATASET / path
        if not dark_high:  # as the middle one of three frames
            dataset = dcmread(file)
            noise = np.random.default_rng(0).integers(0, 4096, dataset.pixel_array.shape, np.uint16).tobytes()
            dataset.NumberOfFrames, dataset.PixelData = 3, noise + dataset.PixelData + noise
            file = finished.folder.parent / "film.dcm"
            file.write_bytes(written(dataset))
        shown = finished.run("python", "-m", "registry", "load", DATASET, "--image", str(file), "--json")
        assert shown.returncode == 0, shown.stderr
        expected = {name: evaluated.loc[path, f"p_{name}"] for name in CLASSES}
        assert json.loads(shown.stdout)["prediction"] == pytest.approx(expected, abs=1e-4)


def test_makers_are_slices_and_headers_that_name_patients_stand_in_the_report(finished: Any) -> None:
    run = finished.folder / "runs" / DATASET
    chosen = json.loads((run / "gate/decision.json").read_text())["chosen"]["folder"]
    metrics = json.loads((run / f"metrics/{chosen}.json").read_text())
    assert {"site=A", "site=B"} <= set(metrics["slices"])
    told = "Expected that no DICOM header tells who the patient is (nothing of that is copied); not so for 112 of 112"
    assert told in (run / "validate/evidence/verdict.json").read_text()
    assert told in (run / "report.html").read_text()


def test_no_output_holds_what_names_a_patient(finished: Any) -> None:
    for file in finished.folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert PATIENT.encode() not in data, file
            assert b"MRN000" not in data, file
            assert b"1.2.3.4711" not in data, file
