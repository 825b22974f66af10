"""A project with a folder of images beside it, for the tests of `data.new`."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from ingest_workspace import ROOT
from PIL import Image

from clinprompt.data.manifest import read_manifest
from clinprompt.data.new import main
from components.ingest.__main__ import work as ingest
from components.runner import execute


class Desk:
    """A project with a folder of images beside it, and what a new user runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.drawn = 0
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["validation"]["min_images_per_class"] = 1
        (folder / "params.yaml").write_text(yaml.safe_dump(params))

    def draw(self, *paths: str) -> None:
        """Smooth random pictures, none like another."""
        for path in paths:
            self.drawn += 1
            noise = np.random.default_rng(self.drawn).integers(0, 256, (6, 6), dtype=np.uint8)
            file = self.images / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).resize((32, 32), Image.Resampling.BICUBIC).save(file)

    def new(self, *options: str, name: str = "mine") -> int:
        return main([name, str(self.images), *options])

    def accepted(self, name: str = "mine") -> pd.DataFrame:
        """Ingest and validate with the card as it is: the rows that validation lets through."""
        from components.validate.__main__ import work as validate

        place = {
            "card": self.folder / "datasets" / f"{name}.yaml",
            "source": self.folder / "data" / name,
            "manifest": self.folder / "ingest" / "manifest.parquet",
            "images": self.folder / "ingest" / "images",
            "params": self.folder / "params.yaml",
        }
        arguments = [word for key, path in place.items() for word in (f"--{key}", str(path))]
        assert execute("ingest", ingest, ["--dataset", name, *arguments], ROOT / "components") == 0
        out = self.folder / "validate"
        place |= {"accepted": out / "m.parquet", "classes": out / "classes.json", "evidence": out / "evidence"}
        place.pop("source")
        arguments = [word for key, path in place.items() for word in (f"--{key}", str(path))]
        assert execute("validate", validate, ["--dataset", name, *arguments], ROOT / "components") == 0
        return read_manifest(place["accepted"])
