"""The cache component, from a manifest and images to a store and a result line."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from clinprompt.data.manifest import write_manifest
from clinprompt.features.store import FeatureStore
from clinprompt.files import sha256_folder
from components.cache.__main__ import work
from components.runner import execute

CARD = {
    "name": "toy",
    "title": "Toy",
    "modality": "MRI",
    "organ": "brain",
    "classes": [{"id": i, "name": i, "phrase": f"a scan with {i}"} for i in ("glioma", "none")],
    "licence": "CC0",
    "source": "made up",
    "how_to_get": "nothing to get",
    "reader": {"kind": "folder"},
}


class Toy:
    """A workspace with everything that the component reads."""

    def __init__(self, root: Path, repository: Path, backbone: Path, images: dict[str, Path]) -> None:
        self.root, self.repository, self.images = root, repository, images
        self.params: dict[str, Any] = yaml.safe_load((repository / "params.yaml").read_text())
        self.params["backbone"] = {"name": "own", "path": str(backbone)}
        self.params["cache"] = {"batch_size": 16, "workers": 1, "precision": "float32"}
        (root / "toy.yaml").write_text(yaml.safe_dump(CARD))
        self.write_manifest(list(images))

    def write_manifest(self, ids: list[str]) -> None:
        fixed = {"label": "none", "split": "train", "patient": None, "site": None, "sex": None, "age": None}
        rows = [{"path": f"{n:03d}.png", "id": i, "file": f"{i}.png", "modality": "MRI"} for n, i in enumerate(ids)]
        write_manifest(pd.DataFrame([row | fixed for row in rows]), self.root / "manifest.parquet")

    def run(self) -> int:
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.params))
        options = {"dataset": "toy", "card": self.root / "toy.yaml", "manifest": self.root / "manifest.parquet"}
        options |= {"images": self.root / "images", "features": self.features, "params": self.root / "params.yaml"}
        argv = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        return execute("cache", work, argv, self.repository / "components")

    @property
    def features(self) -> Path:
        return self.root / "runs" / "features"


@pytest.fixture
def toy(tmp_path: Path, root: Path, backbone_folder: Path, images: dict[str, Path]) -> Toy:
    return Toy(tmp_path, root, backbone_folder, images)


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out)
    return line


def test_ten_more_images_are_ten_computed(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    ids = list(toy.images)
    toy.write_manifest([*ids[:32], ids[0]])  # the same image under two paths
    assert toy.run() == 0
    line = result(capsys)
    assert (line["images"], line["computed"], line["reused"], line["removed"]) == (32, 32, 0, 0)
    toy.write_manifest(ids)
    assert toy.run() == 0
    line = result(capsys)
    assert (line["images"], line["computed"], line["reused"], line["removed"]) == (42, 10, 32, 0)
    assert FeatureStore.open(toy.features).get(ids).shape == (42, 32)


def test_bad_images_stop_it_and_leave_the_old_store(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    ids = list(toy.images)
    toy.write_manifest(ids[:20])
    assert toy.run() == 0
    digest = sha256_folder(toy.features)
    capsys.readouterr()
    toy.images[ids[30]].write_bytes(b"")
    toy.write_manifest(ids)
    assert toy.run() == 67
    assert ids[30] in result(capsys)["message"]
    assert sha256_folder(toy.features) == digest


def test_a_backbone_that_does_not_exist_is_a_wrong_param(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.params["backbone"] = {"name": "biomed-clip", "path": None}
    assert toy.run() == 64
    assert "backbone.name" in result(capsys)["message"]
    assert not toy.features.exists()


def refused(toy: Toy, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the message of a run that computes nothing."""
    code = toy.run()
    assert not toy.features.exists()
    return code, str(json.loads(capsys.readouterr().out.splitlines()[-1])["message"])


def test_classes_that_the_text_tower_reads_alike_stop_before_any_image(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [{"id": i, "name": name, "phrase": "a scan"} for i, name in (("a", "Glioma"), ("b", "glioma"))]
    (toy.root / "toy.yaml").write_text(yaml.safe_dump(CARD | {"classes": classes}))
    code, said = refused(toy, capsys)
    assert code == 64
    assert "reads the same for the classes 'Glioma' and 'glioma'" in said


def test_more_shots_than_images_stop_before_any_image(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.params["training"]["shots"] = 1000
    code, said = refused(toy, capsys)
    assert code == 65
    assert "asks for 1000 different training images" in said
    assert "the class 'glioma' has 0, the class 'none' has " in said
