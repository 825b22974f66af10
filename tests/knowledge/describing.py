"""How these tests call the component `describe`."""

import json
from pathlib import Path
from typing import Any

import yaml

from components.describe.__main__ import work
from components.runner import execute

ROOT = Path(__file__).parents[2]
OUTPUTS = ("descriptions.parquet", "hidden_states.safetensors", "report.json")
SMALL = {
    "aspects": ["shape", "signal"], "descriptions_per_aspect": 2, "max_new_tokens": 8, "answer_tokens": 5,
    "min_accepted_per_class": 0,
}  # fmt: skip


def write_classes(folder: Path, classes: Any) -> None:
    (folder / "classes.json").write_text(json.dumps({"dataset": "small", "classes": classes}))


def call(folder: Path, further: dict[str, Any] | None = None, **knowledge: Any) -> int:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["knowledge"] |= SMALL | knowledge
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    options = {
        "--dataset": "small",
        "--card": folder / "small.yaml",
        "--classes": folder / "classes.json",
        "--descriptions": folder / OUTPUTS[0],
        "--hidden-states": folder / OUTPUTS[1],
        "--samples": folder / "samples",
        "--report": folder / OUTPUTS[2],
        "--params": folder / "params.yaml",
        **(further or {}),
    }
    return execute("describe", work, [str(word) for pair in options.items() for word in pair], ROOT / "components")


def settings(folder: Path, *read: str) -> dict[str, Any]:
    """The option that tells what is read."""
    (folder / "settings.lock").write_text(yaml.safe_dump({"knowledge": list(read)}))
    return {"--settings": folder / "settings.lock"}
