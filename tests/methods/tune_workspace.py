"""A folder with everything that the component `tune` reads."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from clinprompt.backbones.load import load_backbone
from clinprompt.data.manifest import write_manifest
from clinprompt.features.store import write_store
from clinprompt.files import sha256_bytes
from components.runner import execute
from components.tune.__main__ import work

CLASSES = ("glioma", "meningioma", "none")
CARD = {
    "name": "toy", "title": "Toy", "modality": "MRI", "organ": "brain", "licence": "CC0", "source": "made up",
    "how_to_get": "make it", "reader": {"kind": "folder"},
    "classes": [{"id": c, "name": c if c != "none" else "no tumour", "phrase": f"a scan with {c}"} for c in CLASSES],
}  # fmt: skip


class Workspace:
    """A folder with everything that tune reads; `change` edits its params by dotted keys."""

    def __init__(self, folder: Path, backbone: Path, params: dict[str, Any]) -> None:
        self.folder, self.params = folder, params
        self.change({"backbone.name": "mine", "backbone.path": str(backbone), "methods.coop.epochs": 12})
        self.change({"methods.coop.learning_rate": 0.02, "training.checkpoint_every": 3})
        (folder / "toy.yaml").write_text(yaml.safe_dump(CARD))
        self.write_data(load_backbone("mine", backbone).digest)
        for name in ("descriptions.parquet", "hidden_states.safetensors"):
            (folder / name).write_bytes(b"not read by these methods")

    def change(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            *path, last = key.split(".")
            section = self.params
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))

    def write_data(self, backbone_digest: str, drop: tuple[str, str] | None = None) -> None:
        rng = np.random.default_rng(0)
        n = 90
        labels = np.array(CLASSES)[np.arange(n) % 3]
        ids = sorted(self._image(i) for i in range(n))
        frame = pd.DataFrame({"path": [f"{i:03d}.png" for i in range(n)], "id": ids, "label": labels})
        frame["file"], frame["modality"] = frame["id"].str[:2] + "/" + frame["id"] + ".png", "MRI"
        frame["split"] = np.array(["train", "train", "train", "val", "test"])[np.arange(n) // 3 % 5]
        frame["age"] = np.nan
        for column in ("patient", "site", "sex"):
            frame[column] = None
        if drop:
            frame = frame[(frame["split"] != drop[0]) | (frame["label"] != drop[1] if drop[1] else False)]
        write_manifest(frame, self.folder / "manifest.parquet")
        centres = rng.normal(size=(3, 12))
        features = (centres[np.arange(n) % 3] + 0.7 * rng.normal(size=(n, 12))).astype(np.float32)
        write_store(self.folder / "features", {"backbone": {"digest": backbone_digest}}, ids, features)

    def argv(self, candidate: str, out: str, seed: int) -> list[str]:
        values = {
            "dataset": "toy", "candidate": candidate, "seed": seed, "card": "toy.yaml", "manifest": "manifest.parquet",
            "images": "images", "features": "features", "descriptions": "descriptions.parquet",
            "hidden-states": "hidden_states.safetensors", "model": out, "params": "params.yaml",
        }  # fmt: skip
        return [part for key, value in values.items() for part in (f"--{key}", str(value))]

    def tune(self, candidate: str, out: str = "out", seed: int = 1) -> int:
        return execute("tune", work, self.argv(candidate, out, seed), Path(__file__).parents[2] / "components")

    def _image(self, seed: int) -> str:
        stream = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)).save(stream, "PNG")
        found = sha256_bytes(stream.getvalue())
        file = self.folder / "images" / found[:2] / f"{found}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stream.getvalue())
        return found
