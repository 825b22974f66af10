"""Try a candidate out as it would be served: its payload, in a process that has nothing of this project.

Each measurement is told in `clinprompt.evaluation.behaviour`; the rule `behaviour` judges it.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clinprompt.contract.variables import BACKBONES
from clinprompt.evaluation.behaviour import Behaviour
from clinprompt.files import read_json, sha256_file, to_json
from clinprompt.tuned.artifact import HEAD
from registry.package import MANIFEST, Payload
from registry.tracking import SETTINGS

SCRIPT = Path(__file__).with_name("probe_script.py")
_LONGEST = 900  # seconds
_KEPT = ("PATH", "LD_LIBRARY_PATH", BACKBONES, "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_GAMMA, _SHIFT, _GAIN = 1.1, 0.03, 1.06
# What scanners and viewers do between two exports of one image, on values of 0 to 1.
CHANGES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "brighter": lambda x: x + _SHIFT,
    "darker": lambda x: x - _SHIFT,
    "more contrast": lambda x: 0.5 + (x - 0.5) * _GAIN,
    "less contrast": lambda x: 0.5 + (x - 0.5) / _GAIN,
    "gamma up": lambda x: x**_GAMMA,
    "gamma down": lambda x: x ** (1 / _GAMMA),
}
Rows = list[dict[str, float | None]]


def probe(
    payload: Payload,
    images: Sequence[bytes],
    judged: np.ndarray,
    classes: Sequence[str],
    pictures: Sequence[np.ndarray | None],
    folder: Path,
) -> Behaviour:
    """Measure a candidate's behaviour.

    Args:
        images: encoded.
        judged: [n, C] their probabilities as the gate has them, in the order of `classes`.
        pictures: the same images decoded, uint8 [H, W, 3]; None where one is no picture, as a volume.
        folder: an empty one, for what is written.
    """
    payload.write(folder / "payload")
    not_checked: list[str] = []
    if not _permute(folder / "payload", folder / "permuted"):
        not_checked.append("the order of the classes: the method keeps tensors of its own")
    lists = {"plain": _write(folder, "plain", images)}
    shown = [one for one in pictures if one is not None]
    if len(shown) == len(images):
        lists["decoded"] = _write(folder, "decoded", [_png(one) for one in shown])
        lists |= {name: _write(folder, name, [_png(_changed(one, f)) for one in shown]) for name, f in CHANGES.items()}
    else:
        not_checked.append("photometric changes: not every image is a picture")
    (folder / "images.json").write_text(json.dumps(lists), encoding="utf-8")
    answer, why = _run(folder, {})
    if answer is None:
        return Behaviour(images=len(images), problem=f"it does not predict from its payload alone: {why}")
    found = answer["found"]
    if any(value is None for rows in found.values() for row in rows for value in row.values()):
        return Behaviour(images=len(images), problem="some probabilities are no numbers")
    tables = {name: np.array([[row[c] for c in classes] for row in rows]) for name, rows in found.items()}
    gpu = None
    if answer["cuda"]:
        other, why = _run(folder, {"CUDA_VISIBLE_DEVICES": ""})
        if other is None:
            return Behaviour(images=len(images), problem=f"it does not predict on the CPU: {why}")
        gpu = _apart(tables["plain"], np.array([[row[c] for c in classes] for row in other["found"]["plain"]]))
    else:
        not_checked.append("GPU and CPU: there is no GPU")
    return Behaviour(
        images=len(images),
        sums=float(np.abs(tables["plain"].sum(axis=1) - 1).max()),
        judged=_apart(tables["plain"], judged),
        batch=max(_apart(tables["plain"], tables[other]) for other in ("single", "reversed")),
        classes=_apart(tables["plain"], tables["permuted"]) if "permuted" in tables else None,
        flipped=_flipped(tables) if "decoded" in tables else None,
        gpu=gpu,
        not_checked=not_checked,
    )


def _run(folder: Path, more: Mapping[str, str]) -> tuple[Any, str]:
    """What the script prints, or None and why it printed nothing."""
    env = {key: os.environ[key] for key in _KEPT if key in os.environ} | SETTINGS | dict(more)
    env |= {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    script = shutil.copyfile(SCRIPT, folder / SCRIPT.name)
    command = [sys.executable, "-I", str(script), str(folder)]
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=_LONGEST
        )
    except subprocess.TimeoutExpired:
        return None, f"it took longer than {_LONGEST} seconds"
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or ["no reason given"])[-1][:300]
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["imported"]:
        return None, f"it imports {', '.join(answer['imported'])}, which its consumers do not have"
    return answer, ""


def _permute(payload: Path, target: Path) -> bool:
    """Copy a linear head's payload with the classes in reverse order; False where more than a head predicts."""
    from safetensors.numpy import load_file, save_file

    if not (payload / HEAD).is_file():
        return False
    shutil.copytree(payload, target)
    head = load_file(payload / HEAD)
    turned = {name: np.ascontiguousarray(v[::-1]) if v.ndim else v for name, v in head.items()}
    save_file(turned, target / HEAD)
    spec = read_json(payload / "model.json")
    spec |= {key: spec[key][::-1] for key in ("classes", "class_names")}
    (target / "model.json").write_text(to_json(spec), encoding="utf-8")
    manifest = read_json(target / MANIFEST)
    manifest["files"] |= {name: sha256_file(target / name) for name in (HEAD, "model.json")}
    (target / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    return True


def _write(folder: Path, name: str, images: Sequence[bytes]) -> list[str]:
    files = [f"{name.replace(' ', '_')}-{number}" for number in range(len(images))]
    for file, data in zip(files, images, strict=True):
        (folder / file).write_bytes(data)
    return files


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _changed(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    values: np.ndarray = (np.clip(change(pixels / 255.0), 0, 1) * 255).round().astype(np.uint8)
    return values


def _flipped(tables: Mapping[str, np.ndarray]) -> float:
    before = tables["decoded"].argmax(axis=1)
    turned = np.any([tables[name].argmax(axis=1) != before for name in CHANGES], axis=0)
    return round(float(turned.mean()), 6)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(f"{np.abs(one - other).max(initial=0):.3g}")
