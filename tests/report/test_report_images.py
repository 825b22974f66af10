"""The images of patients in the report, and the copy of it that has none."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_volumes import drawn, nifti
from fabricate import Run
from pages import Page, registry_report, report
from PIL import Image

from clinprompt.data.codecs import decode_image
from clinprompt.data.manifest import read_manifest
from clinprompt.files import read_json, sha256_bytes, write_json


def test_it_shows_mistakes_and_right_answers_of_the_chosen_candidate(run: Run) -> None:
    html = report(run)
    table = pd.read_parquet(run.folder / "evaluate" / "coop-1" / "predictions.parquet")
    test = table[table["split"] == "test"]
    wrong = test[test["label"] != test["predicted"]]
    text = Page(html).text
    assert f"Wrong: {len(wrong)} of {len(test)} test images" in text
    assert f"Right: {len(test) - len(wrong)} of {len(test)} test images" in text
    surest = wrong.assign(p=wrong[[c for c in wrong if c.startswith("p_")]].max(axis=1)).sort_values("p").iloc[-1]
    assert f"image {surest['id'][:12]}" in text
    assert not any("/" in name for name in re.findall(r'class="path">([^<]*)<', html))  # no file's name
    pictures = html.count("data:image/png")
    assert pictures >= 4 + 1  # the four plots and the examples
    assert len(html) < 3_000_000


def pictures(html: str) -> list[str]:
    """The texts that stand for the pixel images of a page."""
    return re.findall(r'<img alt="([^"]*)" src="data:image/png', html)


def test_a_dropped_image_is_shown_beside_its_twin(run: Run) -> None:
    verdict = run.folder / "validate" / "evidence" / "verdict.json"
    record = read_json(verdict)
    [one] = record["dropped"]
    name = f"image {one['id'][:12]}"
    html = report(run)
    text = " ".join(Page(html).text.split())
    assert "1 image dropped 1 image was dropped: 1 from train (exact duplicate, test)." in text
    assert f"exact duplicate, similarity 1.0000 dropped: {name} in train, dark square" in text
    assert f"kept: {name} in test, dark square" in text
    assert html.count(f'<img alt="{name}"') == 2
    write_json(verdict, record | {"dropped": [one | {"similarity": None}] * 23})
    html = report(run)
    assert html.count(f'<img alt="{name}"') == 2 * 20
    assert "The first 20 of 23; all are in the evidence's verdict.json." in Page(html).text
    assert "similarity" not in Page(html).text


@pytest.fixture
def scans(run: Run) -> dict[str, bytes]:
    """Two volumes among ingest's copies, by their ids."""
    scan, upright = drawn((18, 20, 24)), np.diag([5.0, 5, 5, 1])
    made = {sha256_bytes(data): data for data in (nifti(scan, upright), nifti(scan * 2, upright))}
    for name, data in made.items():
        file = run.folder / "ingest" / "images" / copy_of(name)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return made


def copy_of(name: str) -> str:
    return f"{name[:2]}/{name}.nii"


def assert_three_planes(html: str, name: str, data: bytes) -> None:
    """The page's picture of a volume is its axial, coronal and sagittal plane side by side."""
    [source] = re.findall(rf'<img alt="image {name[:12]}" src="data:image/png;base64,([^"]*)"', html)
    shown = Image.open(io.BytesIO(base64.b64decode(source)))
    planes = Image.fromarray(decode_image(data).picture()[:, :, 0])
    assert shown.width / shown.height == pytest.approx(planes.width / planes.height, rel=0.02)
    wanted = np.asarray(planes.resize(shown.size, Image.Resampling.LANCZOS), float)
    assert np.abs(np.asarray(shown, float) - wanted).max() <= 1


def test_a_dropped_pair_of_volumes_is_shown_in_three_planes_one_above_the_other(
    run: Run, scans: dict[str, bytes]
) -> None:
    verdict, (dropped, kept) = run.folder / "validate" / "evidence" / "verdict.json", scans
    record = read_json(verdict)
    one = record["dropped"][0] | {"id": dropped, "file": copy_of(dropped), "twin_id": kept, "twin_file": copy_of(kept)}
    assert 'class="twins"' in report(run)
    write_json(verdict, record | {"dropped": [one]})
    html = report(run)
    assert 'class="twins wide"' in html
    for name, data in scans.items():
        assert_three_planes(html, name, data)


def test_flagged_volumes_are_shown_in_three_planes_with_their_checks(run: Run, scans: dict[str, bytes]) -> None:
    verdict = run.folder / "validate" / "evidence" / "verdict.json"
    record, about = read_json(verdict), {"label": "dark", "split": "val", "checks": ["voxel size", "voxel shape"]}
    assert "flagged by checks" not in report(run)
    flagged = [{"id": name, "file": copy_of(name), **about} for name in scans]
    write_json(verdict, record | {"flagged": flagged, "flagged_images": 31})
    html = report(run)
    text = " ".join(Page(html).text.split())
    assert "31 images flagged by checks" in text
    assert "The first 20 of 31; more are in the evidence's verdict.json." in text
    for name, data in scans.items():
        assert_three_planes(html, name, data)
        assert f"voxel size, voxel shape image {name[:12]} in val, dark square" in text
    assert not [name for name in scans if f'<img alt="image {name[:12]}"' in registry_report(run)]


def test_the_registry_s_copy_shows_no_patient_s_image(run: Run) -> None:
    copy, whole = registry_report(run), report(run)
    titles = ["Confusion matrix", "ROC curves", "Reliability", "Image features"]
    assert pictures(copy) == titles
    assert len(pictures(whole)) > len(titles) + 2
    text = Page(copy).text
    assert "Pictures of patients are left out of this copy" in text
    assert "runs/tiny/report.html" in text
    assert "left out of this copy" not in Page(whole).text
    for told in ("Wrong: ", "Right: ", "exact duplicate", "ACCEPTED"):
        assert told in text


def test_the_graph_gives_the_registry_the_copy(root: Path) -> None:
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    copy = "runs/${item.dataset}/report/registry/report.html"
    assert f"--registry-report {copy}" in stages["report"]["cmd"]
    assert f"--report {copy} " in stages["attach"]["cmd"]
    others = [name for name, stage in stages.items() if "runs/${item.dataset}/report.html" in str(stage)]
    assert others == ["report"]


@pytest.mark.parametrize("make", [report, registry_report])
def test_no_file_name_is_shown(run: Run, make: Callable[[Run], str]) -> None:
    paths = read_manifest(run.folder / "validate" / "manifest.parquet")["path"]
    html = make(run)
    assert not [path for path in paths if path in html]
