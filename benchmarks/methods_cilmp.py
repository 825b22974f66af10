"""CILMP's text path against the same computation laid out as the released trainer does it: FLOPs, kernels and time.

    python -m benchmarks.methods_cilmp [--classes 8] [--images 8]

Sizes are those of CLIP ViT-B/16 and a language model of width 4096 with 32 rows per class; weights are random. Both
paths run forward and backward in float32, one after the other in the same process.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import cilmp as plain
from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import method
from clinprompt.prompting.base import Knowledge, Task

LLM_WIDTH, LLM_ROWS, FEATURE = 4096, 32, 512
START, END = 49406, 49407
NAME_TOKENS = 3
Path = Callable[[Any, Tensor], Tensor]
KNOBS: dict[str, Any] = {
    "n_ctx": 4, "context_init": None, "n_ctx_vision": 4, "text_depth": None, "vision_depth": 0, "prefix_length": 4,
    "suffix_length": 4, "rank": 8, "dropout": 0.0, "llm_layers": None, "normalize_rows": False, "averaging": None,
    "learning_rate": 0.0025, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 1,
    "warmup_learning_rate": 1e-5, "batch_size": 64, "epochs": 100,
}  # fmt: skip


def build(classes: int) -> Any:
    """A CILMP on random weights of the full size."""
    model = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None).eval().requires_grad_(False)

    def tokenize(texts: list[str]) -> Tensor:
        ids = torch.zeros(len(texts), 77, dtype=torch.int64)
        words = 1 if texts == ["."] else NAME_TOKENS + 1
        ids[:, 0], ids[:, 1 : 1 + words], ids[:, 1 + words] = START, 320, END
        ids[:, 1] += torch.arange(len(texts))  # each class its own name
        return ids

    backbone: Any = SimpleNamespace(
        name="ViT-B-16", model=model, text=TextTower(model), vision=VisionTower(model), tokenize=tokenize,
        logit_scale=100.0, embed_dim=FEATURE, device=torch.device("cpu"), unknown_id=None,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    states = tuple(torch.randn(LLM_ROWS, LLM_WIDTH, generator=generator) for _ in range(classes))
    cls = method("cilmp")
    task = Task(backbone, tuple(f"class {n}" for n in range(classes)), 0, Knowledge(hidden_states=states))
    return cls(task, cls.Config(**KNOBS))


def flops(path: Path, model: Any, images: int) -> int:
    """FLOPs of a step, forward and backward, on this many images."""
    v = torch.nn.functional.normalize(torch.randn(images, FEATURE), dim=-1)
    with FlopCounterMode(display=False) as counter:
        path(model, v).sum().backward()
    return int(counter.get_total_flops())


def ours(model: Any, v: Tensor) -> Tensor:
    """The path that training takes."""
    features: Tensor = model.text_features(v)
    return features


def measure(path: Path, model: Any, v: Tensor, repeats: int) -> tuple[float, int, float]:
    """GFLOPs, kernels and median seconds of a step, forward and backward."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        path(model, v).sum().backward()

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    kernels = sum(1 for event in profiled.events() if event.name.startswith("aten::") and not event.cpu_children)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return flops(path, model, len(v)) / 1e9, kernels, statistics.median(seconds)


def main() -> None:
    """Print both paths and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = build(options.classes)
    v = torch.nn.functional.normalize(torch.randn(options.images, FEATURE), dim=-1)
    paths: dict[str, Path] = {"plain": plain.text_features, "clinprompt": ours}
    results = {name: measure(path, model, v, options.repeats) for name, path in paths.items()}
    print(f"CILMP text path, C={options.classes}, B={options.images}, {torch.get_num_threads()} threads")
    for name, (flops, kernels, seconds) in results.items():
        print(f"  {name:11} {flops:8.1f} GFLOP  {kernels:7} kernels  {seconds:7.2f} s")
    ratios = [a / b for a, b in zip(results["plain"], results["clinprompt"], strict=True)]
    print(f"  {'ratio':11} {ratios[0]:8.1f}        {ratios[1]:7.1f}          {ratios[2]:7.1f}")


if __name__ == "__main__":
    main()
