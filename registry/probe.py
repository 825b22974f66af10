"""Try a candidate out as it would be served: its payload, in a process that has nothing of this project.

Each measurement is told in `clinprompt.evaluation.behaviour`; the rules that ask for it judge it.
"""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from clinprompt.contract.variables import BACKBONES
from clinprompt.data.codecs.base import DecodedImage, Intensity
from clinprompt.errors import ClinpromptError
from clinprompt.evaluation.behaviour import Behaviour, Latency, Trial
from clinprompt.files import read_json
from registry.class_order import write_reversed
from registry.package import Payload
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


@dataclass(frozen=True)
class Shown:
    """The images that a candidate is tried out on; the first of them where a trial asks for fewer.

    Attributes:
        images: encoded.
        judged: [n, C] their probabilities as the gate has them, in the order of `classes`.
        decoded: pictures or volumes, those on which the behaviour is looked at.
    """

    images: Sequence[bytes]
    judged: np.ndarray
    classes: Sequence[str]
    decoded: Sequence[DecodedImage]


def probe(payload: Payload, trial: Trial, shown: Shown, folder: Path) -> Behaviour:
    """Measure what a trial asks for: in one process, and where that finds a GPU in another one without it.

    Args:
        folder: an empty one, for what is written.
    """
    payload.write(folder / "payload")
    files = _write(folder, "plain", shown.images)
    tried = files[: trial.images]
    not_checked: list[str] = []
    lists = _lists(folder, tried, shown, not_checked) if tried else {}
    timings = [timing.to_json() | {"files": files[: timing.requests]} for timing in trial.timings]
    answer, why = _run(folder, {"lists": lists, "timings": timings}, {})
    if answer is None:
        return Behaviour(images=len(tried), problem=f"it does not predict from its payload alone: {why}")
    answers = [answer]
    if answer["cuda"] and (tried or any(timing.device == "cpu" for timing in trial.timings)):
        plain = {"plain": tried} if tried else {}
        other, why = _run(folder, {"lists": plain, "timings": timings}, {"CUDA_VISIBLE_DEVICES": ""})
        if other is None:
            return Behaviour(images=len(tried), problem=f"it does not predict on the CPU: {why}")
        answers.append(other)
    elif tried and not answer["cuda"]:
        not_checked.append("GPU and CPU: there is no GPU")
    latencies = [_latency(timed) for one in answers for timed in one["timed"]]
    if not tried:
        return Behaviour(images=0, latencies=latencies)
    if any(
        value is None for one in answers for rows in one["found"].values() for row in rows for value in row.values()
    ):
        return Behaviour(images=len(tried), problem="some probabilities are no numbers")
    tables, *others = [
        {name: np.array([[row[c] for c in shown.classes] for row in rows]) for name, rows in one["found"].items()}
        for one in answers
    ]
    return Behaviour(
        images=len(tried),
        sums=float(np.abs(tables["plain"].sum(axis=1) - 1).max()),
        judged=_apart(tables["plain"], shown.judged[: len(tried)]),
        batch=max(_apart(tables["plain"], tables[other]) for other in ("single", "reversed")),
        classes=_apart(tables["plain"], tables["permuted"]) if "permuted" in tables else None,
        flipped=_flipped(tables),
        gpu=max((_apart(tables["plain"], other["plain"]) for other in others), default=None),
        not_checked=not_checked,
        latencies=latencies,
    )


def _lists(folder: Path, tried: list[str], shown: Shown, not_checked: list[str]) -> dict[str, list[str]]:
    """The images that are predicted as batches, by what was changed of them; adds to what can't be checked."""
    try:
        write_reversed(folder / "payload", folder / "permuted")
    except (ClinpromptError, OSError, SafetensorError) as error:
        not_checked.append(f"the order of the classes: {error}")
    lists = {"plain": tried}
    intensity = read_json(folder / "payload" / "model.json")["intensity"]
    decoded = shown.decoded[: len(tried)]
    lists["decoded"] = _write(folder, "decoded", [encoded(one, intensity) for one in decoded])
    for name, change in CHANGES.items():
        lists[name] = _write(folder, name, [encoded(_changed(one, change), intensity) for one in decoded])
    return lists


def _latency(timed: Mapping[str, Any]) -> Latency:
    """The quartiles of what the script timed, to three digits."""
    low, median, high = (float(f"{x:.3g}") for x in np.percentile(np.array(timed["seconds"]) * 1000, [25, 50, 75]))
    facts = {key: timed[key] for key in ("requests", "device", "threads", "on")}
    return Latency(low=low, median=median, high=high, **facts)


def _run(folder: Path, asked: Mapping[str, Any], more: Mapping[str, str]) -> tuple[Any, str]:
    """What the script prints, or None and why it printed nothing."""
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
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


def _write(folder: Path, name: str, images: Sequence[bytes]) -> list[str]:
    files = [f"{name.replace(' ', '_')}-{number}" for number in range(len(images))]
    for file, data in zip(files, images, strict=True):
        (folder / file).write_bytes(data)
    return files


def encoded(image: DecodedImage, intensity: Intensity) -> bytes:
    """A file that is decoded to the same greys: a PNG, or of a volume a NIfTI file.

    Pictures of 8 bits keep their greys. Those of a volume are stretched by `auto` as those of any file, so that of
    brightness and contrast a model sees no more than it would of another scanner's.
    """
    if len(image.shape) == 2:
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(image.picture()).save(out, "PNG")
        return out.getvalue()

    import nibabel

    values = image.values[..., 0]
    if not isinstance(intensity, str):
        low, high = intensity
        values = (low + values / 255.0 * (high - low)).astype(np.float32)
    spacing = image.spacing or (1.0, 1.0, 1.0)
    # Slices, rows and columns go up, to the front and to the right; NIfTI's axes are those from the last to the first.
    volume = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([*spacing[::-1], 1.0]))
    return gzip.compress(volume.to_bytes(), compresslevel=1, mtime=0)


def _changed(image: DecodedImage, change: Callable[[np.ndarray], np.ndarray]) -> DecodedImage:
    every = np.arange(256) / 255.0  # a grey becomes the same one everywhere, so there are no more to work out
    table = (np.clip(change(every), 0, 1) * 255).round().astype(np.uint8)
    return replace(image, values=table[image.values])


def _flipped(tables: Mapping[str, np.ndarray]) -> float:
    before = tables["decoded"].argmax(axis=1)
    turned = np.any([tables[name].argmax(axis=1) != before for name in CHANGES], axis=0)
    return round(float(turned.mean()), 6)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(f"{np.abs(one - other).max(initial=0):.3g}")
