"""A tuned model's folder, written and read without torch: what evaluate, the gate and the registry work with."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes, sha256_file
from clinprompt.tuned.record import ModelRecord

PROMPTS, HEAD, RECORD = "prompts.safetensors", "head.safetensors", "model.yaml"
CURVES, SUPPORT = "curves.csv", "support.parquet"
_EPSILON = 1e-12


@dataclass(frozen=True)
class LinearHead:
    """logits = scale · normalise(v) @ weightᵀ + bias, with `weight` [C, e] and `bias` [C]."""

    weight: np.ndarray
    bias: np.ndarray
    scale: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Float64 logits [n, C] of raw image features [n, e]."""
        v = np.asarray(features, dtype=np.float64)
        v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), _EPSILON)
        logits: np.ndarray = self.scale * (v @ self.weight.T) + self.bias
        return logits

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """The same as probabilities."""
        return softmax(self.logits(features))


@dataclass(frozen=True)
class TunedModel:
    """What a folder holds.

    Attributes:
        record: what `model.yaml` holds.
        digest: of the files that make the model; see `model_digest`.
        head: what predicts from frozen image features; None where that takes the method's own code
            (`clinprompt.tuned.restore`).
    """

    record: ModelRecord
    digest: str
    head: LinearHead | None


def softmax(logits: np.ndarray) -> np.ndarray:
    """Float64 probabilities [n, C] of logits [n, C]."""
    z = np.asarray(logits, dtype=np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def load_model(folder: Path) -> TunedModel:
    """Read a tuned model's folder.

    Raises:
        InputMissing: the folder or one of its files is absent.
        InputCorrupt: a file can't be read, or its content does not fit the others'.
    """
    digest, record = model_digest(folder), ModelRecord.read(folder / RECORD)
    return TunedModel(record, digest, _read_head(folder / HEAD, record) if record.needs_only_head else None)


def write_model(
    folder: Path,
    *,
    record: ModelRecord,
    state: dict[str, np.ndarray],
    head: dict[str, np.ndarray] | None,
    curves: list[dict[str, float]],
    support: dict[str, list[str]],
) -> None:
    """Write a tuned model's folder: equal values give equal bytes.

    Args:
        record: for `model.yaml`.
        state: the method's tensors; may be empty.
        head: weight [C, e], scale [] and, where there is one, bias [C]; None where a head isn't all.
        curves: one row per epoch, all with the same keys.
        support: the columns path, id and label of the images that were trained on.
    """
    folder.mkdir(parents=True)
    save_file({name: np.asarray(a, order="C") for name, a in state.items()}, folder / PROMPTS)
    if head is not None:
        save_file({name: np.asarray(a, order="C") for name, a in head.items()}, folder / HEAD)
    record.write(folder / RECORD)
    with (folder / CURVES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(curves[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(curves)
    columns = {name: pa.array(support[name], pa.string()) for name in ("path", "id", "label")}
    pq.write_table(pa.table(columns), folder / SUPPORT)


def model_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the prompts, the head where there is one, and `model.yaml`; the curves
    don't count.

    Raises:
        InputMissing: one of them is absent.
        InputCorrupt: `model.yaml`, which says whether there is a head, can't be read.
    """
    names = (HEAD, PROMPTS) if ModelRecord.read(folder / RECORD).needs_only_head else (PROMPTS,)
    lines = []
    for name in sorted((*names, RECORD)):
        if not (folder / name).is_file():
            raise InputMissing(f"{folder / name} does not exist; run tune again (dvc repro).")
        lines.append(f"{name} {sha256_file(folder / name)}\n")
    return sha256_bytes("".join(lines).encode())


def _read_head(path: Path, record: ModelRecord) -> LinearHead:
    try:
        head = load_file(path)
    except SafetensorError as error:
        raise InputCorrupt(f"{path} can't be read ({error}). Delete its folder and run tune again.") from None
    if not {"weight", "scale"} <= set(head):
        raise InputCorrupt(f"{path} holds no weight and scale. Delete its folder and run tune again.")
    classes = len(record.classes)
    weight = head["weight"].astype(np.float64)
    bias = head.get("bias", np.zeros(classes)).astype(np.float64)
    if weight.shape != (classes, record.backbone.embed_dim) or bias.shape != (classes,):
        raise InputCorrupt(f"{path}: weight {weight.shape} does not fit {path.with_name(RECORD)}. Run tune again.")
    return LinearHead(weight, bias, float(head["scale"]))
