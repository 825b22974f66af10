"""A payload with its classes in reverse order: the same model, of which each class must keep its probability."""

import shutil
from pathlib import Path
from typing import Any

from clinprompt.files import read_json, sha256_file, to_json
from clinprompt.tuned.artifact import HEAD, PROMPTS
from registry.package import MANIFEST


def write_reversed(payload: Path, target: Path) -> None:
    """Copy a payload's folder with its classes, their names and their part of the tensors in reverse order.

    Raises:
        InputCorrupt: a tensor does not have the classes where the method says so.
        OSError, SafetensorError: the payload can't be read.
    """
    from safetensors.torch import load_file, save_file

    spec = read_json(payload / "model.json")
    name = HEAD if spec["predicts_with"] == "head" else PROMPTS
    state = load_file(payload / name)
    turned = _head(state) if name == HEAD else _tensors(state, spec)
    spec |= {key: spec[key][::-1] for key in ("classes", "class_names")}
    shutil.copytree(payload, target)
    save_file(turned, target / name)
    (target / "model.json").write_text(to_json(spec), encoding="utf-8")
    manifest = read_json(target / MANIFEST)
    manifest["files"] |= {file: sha256_file(target / file) for file in (name, "model.json")}
    (target / MANIFEST).write_text(to_json(manifest), encoding="utf-8")


def _head(state: dict[str, Any]) -> dict[str, Any]:
    """Of a linear head each class has a row; the scale is a single number."""
    return {name: tensor.flip(0) if tensor.dim() else tensor for name, tensor in state.items()}


def _tensors(state: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """By what the method says of them."""
    from clinprompt.methods import check_config, method

    config = check_config(spec["method"], spec["config"])
    return method(spec["method"]).reordered(state, range(len(spec["classes"]))[::-1], config)
