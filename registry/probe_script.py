"""Run by `registry.probe` in a process that has nothing of this project: a payload predicts images, and tells how.

Takes a folder with `payload` (and maybe `permuted`) and `images.json`, lists of files by name; prints JSON.
"""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd


def main(folder: Path) -> None:
    """Predict each list of images as one batch; of the list "plain" also one by one, reversed, and permuted."""
    lists: dict[str, list[str]] = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    model = _loaded(folder / "payload")
    found: dict[str, Any] = {name: _predicted(model, folder, files) for name, files in lists.items()}
    plain = lists["plain"]
    found["single"] = [_predicted(model, folder, [file])[0] for file in plain]
    found["reversed"] = _predicted(model, folder, plain[::-1])[::-1]
    if (folder / "permuted").is_dir():
        found["permuted"] = _predicted(_loaded(folder / "permuted"), folder, plain)
    import torch

    project = sorted({"clinprompt", "registry", "components", "workspace"} & set(sys.modules))
    print(json.dumps({"found": found, "cuda": torch.cuda.is_available(), "imported": project}))  # noqa: T201


def _loaded(payload: Path) -> Any:
    script = runpy.run_path(str(payload / "model_script.py"))
    model = script["PromptTunedClassifier"]()
    model.load_context(SimpleNamespace(artifacts={"payload": str(payload)}))
    return model


def _predicted(model: Any, folder: Path, files: list[str]) -> list[dict[str, float | None]]:
    """Per image, class -> probability; None for what is no number."""
    table = model.predict(None, pd.DataFrame({"image": [folder / file for file in files]}))
    columns = [name for name in table.columns if name.startswith("p_")]
    values = table[columns].to_numpy(dtype=np.float64)
    return [
        {name[2:]: float(p) if np.isfinite(p) else None for name, p in zip(columns, row, strict=True)} for row in values
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
