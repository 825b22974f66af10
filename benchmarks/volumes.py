"""A step of DEFT-VLM-AD at the true grid against the same step laid out as released: seconds and peak memory.

    python -m benchmarks.volumes [--volumes 1] [--repeats 3]

M3D-CLIP's sizes (32 x 256 x 256 voxels, 2,070 tokens, BERT-base), random weights, float32, forward and backward, each
path in a process of its own. Ours takes the embedded patches, which training keeps; the plain path takes the voxels.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.plain import volumes as plain
from clinprompt.backbones.m3d import M3DClip
from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.demo.volumes.towers import PUBLISHED, initial_model
from clinprompt.methods import method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch

TOKENS = 96  # of a report
PATHS = ("plain", "clinprompt")


def build() -> tuple[Any, M3DClip]:
    """The method on random weights of the full size."""
    clip = initial_model(PUBLISHED, seed=0).eval().requires_grad_(False)
    backbone: Any = SimpleNamespace(
        name="m3d-clip", model=clip, text=TextTower(clip), vision=VisionTower(clip), logit_scale=1.0, embed_dim=768,
        device=torch.device("cpu"), unknown_id=None, tokenize=lambda texts: F.pad(reports(len(texts))[:, :8], (0, 24)),
    )  # fmt: skip
    cls = method("deft_ad")
    return cls(Task(backbone, ("NC", "MCI", "AD"), 0), cls.Config()).eval(), clip


def reports(count: int) -> Tensor:
    """Token ids [count, T] without padding."""
    return torch.randint(1000, 30000, (count, TOKENS), generator=torch.Generator().manual_seed(1))


def step(path: str, model: Any, clip: M3DClip, inputs: Tensor, ids: Tensor) -> Tensor:
    """The loss of one step, with its gradients at the parameters."""
    model.zero_grad(set_to_none=True)
    scores = torch.full((len(ids),), 24.0)
    if path == "plain":
        loss = plain.step_loss(model, clip, inputs, ids, scores)
    else:
        batch = Batch(inputs, torch.zeros(len(ids), dtype=torch.int64), reports=ids, scores=scores)
        images = model.image_tokens(batch)
        error = ((model.mmse(images) - scores / model.config.mmse_divisor) ** 2).mean()
        cosines = model.contrast(batch, images).scores.diagonal()
        loss = model.config.mmse_weight * error - cosines.mean()
    loss.backward()
    return loss.detach()


def measure(path: str, count: int, repeats: int) -> dict[str, float]:
    """Median seconds of a step, the process's peak memory in GB and what of it the steps took."""
    model, clip = build()
    inputs = torch.rand(count, 1, 32, 256, 256, generator=torch.Generator().manual_seed(2))
    if path == "clinprompt":
        with torch.no_grad():
            inputs = model.prepare(inputs)
    before, seconds, loss = _peak(), [], torch.zeros(())
    for _ in range(repeats):
        started = time.perf_counter()
        loss = step(path, model, clip, inputs, reports(count))
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "peak": _peak(), "steps": _peak() - before, "loss": float(loss)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print both paths and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--path", choices=PATHS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path:
        print(json.dumps(measure(options.path, options.volumes, options.repeats)))
        return
    command = [sys.executable, "-m", "benchmarks.volumes", "--volumes", str(options.volumes)]
    command += ["--repeats", str(options.repeats), "--path"]
    found = {path: json.loads(subprocess.check_output([*command, path]).splitlines()[-1]) for path in PATHS}
    print(f"DEFT-VLM-AD, B={options.volumes}, {torch.get_num_threads()} threads")
    for path, one in found.items():
        print(f"  {path:11} {one['seconds']:7.2f} s   steps {one['steps']:6.2f} GB   process {one['peak']:6.2f} GB")
    plainly, ours = found["plain"], found["clinprompt"]
    ratios = {key: ours[key] / plainly[key] for key in ("seconds", "steps", "peak")}
    print("  ratio       " + "   ".join(f"{key} {value:.2f}" for key, value in ratios.items()))
    print(f"  losses differ by {abs(plainly['loss'] - ours['loss']):.1e}")


if __name__ == "__main__":
    main()
