"""A folder on which ingest is run, for the tests of ingest."""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from clinprompt.data.manifest import read_manifest
from components.ingest.__main__ import work
from components.runner import execute

ROOT = Path(__file__).parents[2]
CARD: dict[str, Any] = {
    "name": "toy",
    "title": "Toy",
    "modality": "MRI",
    "organ": "brain",
    "classes": [
        {"id": "glioma", "name": "glioma", "phrase": "a brain MRI with a glioma", "aliases": ["Glioma Tumor", "1"]},
        {"id": "none", "name": "no tumor", "phrase": "a brain MRI without a tumor", "aliases": ["0"]},
    ],
    "licence": "CC0",
    "source": "made up",
    "how_to_get": "Ask the toy maker.",
    "reader": {"kind": "folder"},
}


class Workspace:
    """A folder with a card, params and a data root, on which ingest is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.data = self.root / "toy"
        self.data.mkdir(parents=True)
        shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
        self.card()

    def card(self, **changes: Any) -> None:
        (self.folder / "toy.yaml").write_text(yaml.safe_dump(CARD | changes))

    def image(self, path: str, seed: int | None = None) -> Path:
        file = self.data / path
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32(path.encode()) if seed is None else seed
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file)
        return file

    def published(self) -> None:
        """`<split>/<class>/*` for all three splits."""
        for split in ("train", "val", "test"):
            for label in ("glioma", "none"):
                for i in range(3):
                    self.image(f"{split}/{label}/{i}.png")

    def table(self, text: str, name: str = "manifest.csv") -> None:
        (self.data / name).write_text(text)

    def ingest(self) -> int:
        paths = {
            "card": self.folder / "toy.yaml",
            "source": self.folder / "data" / "toy",
            "manifest": self.folder / "out" / "manifest.parquet",
            "images": self.folder / "out" / "images",
            "params": self.folder / "params.yaml",
        }
        argv = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
        return execute("ingest", work, ["--dataset", "toy", *argv], ROOT / "components")

    def manifest(self) -> pd.DataFrame:
        return read_manifest(self.folder / "out" / "manifest.parquet")


def refused(place: Workspace, capsys: pytest.CaptureFixture[str], code: int, *parts: str) -> None:
    """Ingest ends with this code and one sentence, and leaves nothing behind."""
    assert place.ingest() == code
    message = json.loads(capsys.readouterr().out)["message"]
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert not list((place.folder / "out").iterdir())
