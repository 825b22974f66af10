"""Run by `registry.probe` in a process that has nothing of this project: a payload predicts images, and tells how.

Takes a folder with `payload` (and maybe `permuted`) and `asked.json`; prints JSON. What is asked: `lists`, names of
files by name, which are predicted, and `timings`, how single images are timed (`clinprompt.evaluation.behaviour`).
"""

import json
import platform
import runpy
import sys
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

WARM_UP = 5  # images that are not counted


def main(folder: Path) -> None:
    """Predict each list of images as one batch; of the list "plain" also one by one, and reversed. Then time single
    images, as far as that is asked for on the device that is found, and predict "plain" by the model that is permuted.
    """
    asked: dict[str, Any] = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    lists: dict[str, list[str]] = asked["lists"]
    model = _loaded(folder / "payload")
    found: dict[str, Any] = {name: _predicted(model, folder, files) for name, files in lists.items()}
    plain = lists.get("plain", [])
    if plain:
        found["single"] = [_predicted(model, folder, [file])[0] for file in plain]
        found["reversed"] = _predicted(model, folder, plain[::-1])[::-1]
    import torch

    cuda = torch.cuda.is_available()
    here = "cuda" if cuda else "cpu"
    timed = [_timed(model, folder, timing) for timing in asked["timings"] if timing["device"] == here]
    if plain and (folder / "permuted").is_dir():
        del model  # two backbones may be too much for the memory
        found["permuted"] = _predicted(_loaded(folder / "permuted"), folder, plain)
    project = sorted({"clinprompt", "registry", "components", "workspace"} & set(sys.modules))
    print(json.dumps({"found": found, "cuda": cuda, "timed": timed, "imported": project}))  # noqa: T201


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


def _timed(model: Any, folder: Path, timing: dict[str, Any]) -> dict[str, Any]:
    """The seconds that each image takes alone, from its encoded bytes on."""
    import torch

    torch.set_num_threads(timing["threads"])
    images = [(folder / file).read_bytes() for file in timing["files"]]
    seconds = []
    for number in range(WARM_UP + timing["requests"]):
        table = pd.DataFrame({"image": [images[number % len(images)]]})
        started = perf_counter()
        model.predict(None, table)
        seconds.append(perf_counter() - started)
    on = torch.cuda.get_device_name() if timing["device"] == "cuda" else _processor()
    facts = {key: timing[key] for key in ("requests", "device", "threads")}
    return facts | {"on": on, "seconds": seconds[WARM_UP:]}


def _processor() -> str:
    """The CPU's name, as Linux tells it; elsewhere its kind."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
