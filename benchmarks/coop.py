"""CoOp on cached image features against the same training with the image tower run at each step.

    python -m benchmarks.coop [--only demo-clip] [--repeats 3]

Both train the same context with the same loop, batches and learning rates, first from features that were computed
before, then from pixels. Prints one JSON object per model: seconds per step, their ratio (expected above 20), the same
in processor seconds, which a busy machine disturbs less than the clock, the time that computing the features once took,
and how far the two contexts are apart at the end.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from clinprompt.backbones.load import Backbone, Built, load_backbone
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

CLASSES = ("glioma", "meningioma", "pituitary tumour", "no tumour")
BATCH_SIZE = 32
CONFIG = {
    "n_ctx": 4, "context_init": "a photo of a", "class_specific": False, "class_position": "end",
    "learning_rate": 0.002, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 0, "warmup_learning_rate": 1e-5,
    "batch_size": BATCH_SIZE, "epochs": 1,
}  # fmt: skip


class Pixels:
    """Examples whose features are computed from pixels when a batch asks for them."""

    def __init__(self, backbone: Backbone, pixels: Tensor, labels: Tensor) -> None:
        self.backbone, self.pixels, self.labels = backbone, pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: np.ndarray) -> Batch:
        index = torch.from_numpy(rows)
        return Batch(self.backbone.encode_images(self.pixels[index]), self.labels[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="measure this model alone")
    parser.add_argument("--repeats", type=int, default=3, help="of the training on cached features")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"cores": cores, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}))
    for name, (build, steps) in {"demo-clip": (demo_clip, 16), "ViT-B-16": (random_vit, 2)}.items():
        if options.only in (None, name):
            print(json.dumps({"model": name} | measure(build(), steps, options.repeats)), flush=True)


def demo_clip() -> Backbone:
    return load_backbone("demo-clip")


def random_vit() -> Backbone:
    """A CLIP of ViT-B/16's size with random weights."""
    model = open_clip.create_model("ViT-B-16", pretrained=None).eval().requires_grad_(False)
    return Backbone(
        name="ViT-B-16", digest="0" * 64,
        build=lambda: Built(model, open_clip.get_tokenizer("ViT-B-16"), 100.0),
        preprocessing=Preprocessing(224, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD), embed_dim=512,
        card=None, folder=None, device=torch.device("cpu"),
    )  # fmt: skip


def measure(backbone: Backbone, steps: int, repeats: int) -> dict[str, Any]:
    """Train for `steps` steps both ways and compare."""
    side, n = backbone.preprocessing.size, BATCH_SIZE * steps
    pixels = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % len(CLASSES)
    backbone.encode_images(pixels[:1])
    started = time.perf_counter()
    features = torch.cat([backbone.encode_images(batch) for batch in pixels.split(BATCH_SIZE)])
    features_seconds = time.perf_counter() - started
    cached = Examples(features, labels)
    train(backbone, cached, cached)
    runs = [train(backbone, cached, cached) for _ in range(repeats)]
    fast, fast_cpu = (statistics.median(run[clock] for run in runs) / steps for clock in (0, 1))
    seconds, cpu, ctx = train(backbone, Pixels(backbone, pixels, labels), cached)
    return {
        "batch_size": BATCH_SIZE,
        "steps": steps,
        "cached_seconds_per_step": round(fast, 5),
        "image_tower_seconds_per_step": round(seconds / steps, 5),
        "ratio": round(seconds / steps / fast, 1),
        "cpu_ratio": round(cpu / steps / fast_cpu, 1),
        "features_once_seconds": round(features_seconds, 3),
        "largest_context_difference": float((ctx - runs[0][2]).abs().max()),
        "largest_context_change": float((ctx - initial(backbone)).abs().max()),
    }


def train(backbone: Backbone, data: Any, val: Examples) -> tuple[float, float, Tensor]:
    """One epoch; returns its seconds and processor seconds, the validation on cached features included, and `ctx`."""
    coop: Any = method("coop")(Task(backbone, CLASSES, 0), check_config("coop", CONFIG))
    started, cpu = time.perf_counter(), time.process_time()
    fit(coop, data, val, Run(seed=0))
    return time.perf_counter() - started, time.process_time() - cpu, coop.ctx.detach()


def initial(backbone: Backbone) -> Tensor:
    """The context before training."""
    coop: Any = method("coop")(Task(backbone, CLASSES, 0), check_config("coop", CONFIG))
    return coop.ctx.detach()


if __name__ == "__main__":
    main()
