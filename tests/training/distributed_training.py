"""Run by torchrun, or alone: trains a small softmax regression and VPT, and writes what came out."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.augmentation import CropFlip
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.distributed import joined
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

KNOBS: dict[str, Any] = {
    "n_prompts": 2, "depth": None, "head": "linear", "template": "{}", "learning_rate": 0.05, "momentum": 0.9,
    "weight_decay": 0.001, "warmup_epochs": 0, "warmup_learning_rate": 0.1, "clip_norm": 0.5,
}  # fmt: skip
RUNS = {
    "plain": {"batch_size": 5, "micro_batches": 1, "augmented": False},
    "parts": {"batch_size": 5, "micro_batches": 2, "augmented": True},
    "single": {"batch_size": 1, "micro_batches": 1, "augmented": False},
}


def main(out: Path) -> None:
    """Write the curves and the trained tensors of each run, from the first process."""
    torch.manual_seed(0)
    vision = {"image_size": 8, "layers": 2, "width": 16, "patch_size": 4, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)
    backbone: Any = SimpleNamespace(
        vision=VisionTower(model), embed_dim=12, logit_scale=20.0, device=torch.device("cpu"), name="tiny"
    )
    pixels, labels = torch.randn(11, 3, 8, 8), torch.arange(11) % 3
    with joined("cpu") as ranks:
        for name, how in RUNS.items():
            config = check_config("vpt", KNOBS | {"batch_size": how["batch_size"], "epochs": 3})
            tuned = method("vpt")(Task(backbone, ("a", "b", "c"), 1), config)
            prepared = Examples(tuned.prepare(pixels), labels)
            train = CropFlip(pixels, labels, tuned.prepare) if how["augmented"] else prepared
            val = Examples(prepared.inputs[:7], labels[:7])
            checkpoint = Checkpoint(out / f"{name}.checkpoint", 1, name)
            curves = fit(tuned, train, val, Run(4, checkpoint, how["micro_batches"], ranks=ranks))
            if ranks.writes:
                save_file(tuned.state(), out / f"{name}.safetensors")
                (out / f"{name}.json").write_text(json.dumps({"curves": curves, "processes": ranks.size}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
