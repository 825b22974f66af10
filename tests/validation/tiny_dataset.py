"""Small datasets made on the spot: a manifest, ingest's copies of the images, a card."""

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from clinprompt.data.columns import COLUMNS
from clinprompt.data.manifest import write_manifest
from components.runner import execute

CLASSES = ("glioma", "none")
PER_CELL = 5


def picture(seed: int, size: int = 48) -> Image.Image:
    """A smooth random picture; two seeds give pictures that do not look alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@dataclass
class Dataset:
    """Healthy as made: two classes with five images each in every split. Tests add rows and change them."""

    folder: Path
    root: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)

    def put(self, path: str, data: bytes, split: str = "train", label: str = "glioma", **more: Any) -> None:
        """Add or replace an image."""
        digest = hashlib.sha256(data).hexdigest()
        file = f"{digest[:2]}/{digest}{Path(path).suffix}"
        (self.folder / "images" / digest[:2]).mkdir(parents=True, exist_ok=True)
        (self.folder / "images" / file).write_bytes(data)
        row = {"path": path, "id": digest, "file": file, "label": label, "split": split, "modality": "MRI"}
        self.rows[path] = row | more

    def name(self, path: str) -> str:
        """What people are told of an image instead of its path."""
        row = self.rows[path]
        return f"image {row['id'][:12]} in {row['split']}"

    def frame(self) -> pd.DataFrame:
        """The manifest."""
        extra = sorted({key for row in self.rows.values() for key in row} - set(COLUMNS))
        frame = pd.DataFrame(list(self.rows.values()), columns=[*COLUMNS, *extra])
        return frame.assign(age=frame["age"].astype("float64")).sort_values("path", ignore_index=True)

    def validate(self, name: str = "validate") -> int:
        """Run the component; its exit code."""
        from components.validate.__main__ import work

        out = self.folder / name
        paths = {
            "card": self.folder / "demo.yaml",
            "manifest": self.folder / "manifest.parquet",
            "images": self.folder / "images",
            "accepted": out / "manifest.parquet",
            "classes": out / "classes.json",
            "evidence": out / "evidence",
            "params": self.folder / "params.yaml",
        }
        write_manifest(self.frame(), paths["manifest"])
        paths["card"].write_text(yaml.safe_dump(self.card))
        params = yaml.safe_load((self.root / "params.yaml").read_text())
        params["validation"] |= self.params
        paths["params"].write_text(yaml.safe_dump(params))
        arguments = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
        return execute("validate", work, ["--dataset", "demo", *arguments], self.root / "components")

    def verdict(self, name: str = "validate") -> Any:
        """verdict.json."""
        return json.loads((self.folder / name / "evidence" / "verdict.json").read_text())

    def failed(self, severity: str = "critical") -> dict[str, str]:
        """Name and sentence of the checks of that severity that failed."""
        checks = self.verdict()["checks"]
        return {c["name"]: c["message"] for c in checks if c["passed"] is False and c["severity"] == severity}
