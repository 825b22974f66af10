"""A dataset of four classes in miniature, with a random backbone, on which the experiment component runs."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from clinprompt.backbones.load import load_backbone
from clinprompt.data.manifest import write_manifest
from clinprompt.experiments.results import read_result
from clinprompt.features.store import write_store
from clinprompt.files import sha256_bytes
from components.experiment.__main__ import work
from components.runner import execute

CLASSES = ("adenoma", "benign", "cyst", "normal")
SPLITS = {"train": 12, "val": 5, "test": 8}
CARD = {
    "name": "toy", "title": "Toy", "modality": "MRI", "organ": "brain", "licence": "CC0", "source": "made up",
    "how_to_get": "make it", "reader": {"kind": "folder"},
    "classes": [{"id": c, "name": f"{c} tissue", "phrase": f"a scan with {c}"} for c in CLASSES],
}  # fmt: skip
PROTOCOLS = {
    "datasets": ["toy"],
    "methods": ["coop"],
    "names": ["few_shot"],
    "seeds": [1, 2],
    "stack": 1,
    "full": {"methods": {}},
    "few_shot": {"shots": [1, 4], "val_shots": 4, "methods": {}},
    "base_to_novel": {"shots": 4, "val_shots": 4, "methods": {}},
    "label_efficiency": {"fractions": [0.25, 1.0], "methods": {}},
    "cross_validation": {"folds": 2, "methods": {}},
    "transfer": {"sources": ["toy"], "targets": ["toy"]},
}


def rows_of(counts: dict[str, int], classes: tuple[str, ...] = CLASSES) -> pd.DataFrame:
    """Rows without files, `counts[split]` of each class."""
    rows = []
    for split, count in counts.items():
        for label in classes:
            for k in range(count):
                image = sha256_bytes(f"{split} {label} {k}".encode())
                rows.append({"path": f"{split}/{label}/{k:03d}.png", "id": image, "label": label, "split": split})
    frame = pd.DataFrame(rows)
    frame["file"], frame["modality"], frame["age"] = frame["id"].str[:2] + "/" + frame["id"] + ".png", "MRI", np.nan
    for column in ("patient", "site", "sex"):
        frame[column] = None
    return frame.sort_values("path", ignore_index=True)


class Toy:
    """A project folder; `change` edits its params by dotted keys, `run` runs the component."""

    def __init__(self, folder: Path, backbone: Path, params: dict[str, Any]) -> None:
        self.folder, self.params = folder, params
        self.params["protocols"] = json.loads(json.dumps(PROTOCOLS))
        self.change({"backbone": {"name": "mine", "path": str(backbone)}, "datasets": ["toy"]})
        self.change({"methods.coop.epochs": 6, "methods.coop.learning_rate": 0.02, "methods.coop.batch_size": 8})
        self.write_card({})
        self.manifest = self._images(rows_of(SPLITS))
        write_manifest(self.manifest, folder / "manifest.parquet")
        for name in ("descriptions.parquet", "hidden_states.safetensors"):
            (folder / name).write_bytes(b"not read by these methods")
        rng, digest = np.random.default_rng(0), load_backbone("mine", backbone).digest
        frame = self.manifest.sort_values("id")
        centres = rng.normal(size=(len(CLASSES), 12))
        features = centres[frame["label"].map(CLASSES.index)] + 0.5 * rng.normal(size=(len(frame), 12))
        ids = frame["id"].tolist()
        write_store(folder / "features", {"backbone": {"digest": digest}}, ids, features.astype(np.float32))

    def change(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            *path, last = key.split(".")
            section = self.params
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))

    def write_card(self, changes: dict[str, Any]) -> None:
        (self.folder / "toy.yaml").write_text(yaml.safe_dump(CARD | changes))

    def run(self, protocol: str, method: str, out: str = "out") -> int:
        values = {
            "dataset": "toy", "protocol": protocol, "method": method, "card": "toy.yaml",
            "manifest": "manifest.parquet", "images": "images", "features": "features",
            "descriptions": "descriptions.parquet", "hidden-states": "hidden_states.safetensors",
            "result": f"{out}/{method}.json", "params": "params.yaml",
        }  # fmt: skip
        argv = [part for key, value in values.items() for part in (f"--{key}", str(value))]
        return execute("experiment", work, argv, Path(__file__).parents[2] / "components")

    def result(self, method: str, out: str = "out") -> dict[str, Any]:
        return read_result(self.folder / out / f"{method}.json")

    def _images(self, frame: pd.DataFrame) -> pd.DataFrame:
        rng, ids = np.random.default_rng(1), []
        for label in frame["label"]:
            stream = io.BytesIO()
            tone = 40 + 50 * CLASSES.index(label)
            pixels = np.clip(rng.normal(tone, 20, size=(16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(stream, "PNG")
            ids.append(sha256_bytes(stream.getvalue()))
            file = self.folder / "images" / ids[-1][:2] / f"{ids[-1]}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(stream.getvalue())
        frame = frame.assign(id=ids)
        return frame.assign(file=frame["id"].str[:2] + "/" + frame["id"] + ".png")


@pytest.fixture
def toy(tmp_path: Path, backbone_folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.chdir(tmp_path)
    return Toy(tmp_path, backbone_folder, yaml.safe_load((root / "params.yaml").read_text()))


@pytest.fixture
def make_manifest() -> Callable[..., pd.DataFrame]:
    return rows_of
