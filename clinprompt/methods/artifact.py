"""A tuned model's folder, written and read without torch: what evaluate, the gate and the registry work with."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes, sha256_file

FORMAT = 1
PROMPTS, HEAD, SPEC = "prompts.safetensors", "head.safetensors", "model.yaml"
CURVES, SUPPORT = "curves.csv", "support.parquet"
_EPSILON = 1e-12


@dataclass(frozen=True)
class TunedModel:
    """A linear head on normalised image features, with the record of how it came to be.

    Attributes:
        spec: what `model.yaml` holds.
        digest: of the files that make the model; see `model_digest`.
        weight: [C, e]; `bias`: [C]; logits = scale · normalise(v) @ weightᵀ + bias.
    """

    spec: dict[str, Any]
    digest: str
    weight: np.ndarray
    bias: np.ndarray
    scale: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Float64 logits [n, C] of raw image features [n, e]."""
        v = np.asarray(features, dtype=np.float64)
        v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), _EPSILON)
        return self.scale * (v @ self.weight.T) + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Float64 probabilities [n, C] of raw image features [n, e], the classes in the order of `spec["classes"]`."""
        z = self.logits(features)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)


def load_model(folder: Path) -> TunedModel:
    """Read a tuned model's folder.

    Raises:
        InputMissing: the folder or one of its files is absent.
        InputCorrupt: a file can't be read, or its content does not fit the others'.
    """
    digest = model_digest(folder)
    spec = _read_spec(folder / SPEC)
    head = _read_head(folder / HEAD)
    classes = len(spec["classes"])
    weight = head["weight"].astype(np.float64)
    bias = head.get("bias", np.zeros(classes)).astype(np.float64)
    if weight.shape != (classes, spec["backbone"]["embed_dim"]) or bias.shape != (classes,):
        raise InputCorrupt(f"{folder / HEAD}: weight {weight.shape} does not fit {folder / SPEC}. Run tune again.")
    return TunedModel(spec, digest, weight, bias, float(head["scale"]))


def write_model(
    folder: Path,
    *,
    spec: dict[str, Any],
    prompts: dict[str, np.ndarray],
    head: dict[str, np.ndarray],
    curves: list[dict[str, float]],
    support: dict[str, list[str]],
) -> None:
    """Write a tuned model's folder: equal values give equal bytes.

    Args:
        spec: the record for `model.yaml`; `format` is added.
        prompts: the trained tensors; may be empty.
        head: weight [C, e], scale [] and, where there is one, bias [C].
        curves: one row per epoch, all with the same keys.
        support: the columns path, id and label of the images that were trained on.
    """
    folder.mkdir(parents=True)
    save_file({name: np.asarray(a, order="C") for name, a in prompts.items()}, folder / PROMPTS)
    save_file({name: np.asarray(a, order="C") for name, a in head.items()}, folder / HEAD)
    record = yaml.safe_dump({"format": FORMAT, **spec}, sort_keys=True, allow_unicode=True)
    (folder / SPEC).write_text(record, encoding="utf-8")
    with (folder / CURVES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(curves[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curves)
    columns = {name: pa.array(support[name], pa.string()) for name in ("path", "id", "label")}
    pq.write_table(pa.table(columns), folder / SUPPORT)


def model_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the prompts, the head and `model.yaml`; the curves don't count.

    Raises:
        InputMissing: one of them is absent.
    """
    lines = []
    for name in sorted((PROMPTS, HEAD, SPEC)):
        if not (folder / name).is_file():
            raise InputMissing(f"{folder / name} does not exist; run tune again (dvc repro).")
        lines.append(f"{name} {sha256_file(folder / name)}\n")
    return sha256_bytes("".join(lines).encode())


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        spec = None
    if not isinstance(spec, dict) or not {"classes", "backbone"} <= set(spec):
        raise InputCorrupt(f"{path} is not a model's record. Delete its folder and run tune again.")
    if spec.get("format") != FORMAT:
        raise InputCorrupt(f"{path}: format {spec.get('format')!r} is not {FORMAT}, the one that this version reads.")
    return spec


def _read_head(path: Path) -> dict[str, np.ndarray]:
    try:
        head = load_file(path)
    except SafetensorError as error:
        raise InputCorrupt(f"{path} can't be read ({error}). Delete its folder and run tune again.") from None
    if not {"weight", "scale"} <= set(head):
        raise InputCorrupt(f"{path} holds no weight and scale. Delete its folder and run tune again.")
    return head
