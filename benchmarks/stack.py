"""Runs per hour of BiomedCoOp, trained one at a time and stacked in one process.

    python -m benchmarks.stack [--runs 8] [--model demo-clip | biomedclip] [--blocks 12] [--epochs 2]

Each run has its own seed and its own weight of SCCM; all have 16 images for each of 4 classes, batches of 4 and 50
sentences per class, as in the published few-shot setting. A few epochs are timed and 100 reported: runs per hour of
both, their ratio (aim: 4 on a CPU), and how far apart the contexts are at the end.
"""

import argparse
import json
import os
import time

import torch

from benchmarks.methods_text import CLASSES, DESCENT, KNOBS, SENTENCES, random_biomedclip
from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.experiments.stacked import Member, descend_stacked
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

SHOTS, EPOCHS = 16, 100


def members(backbone: Backbone, runs: int, epochs: int) -> list[Member]:
    """That many runs, each with its seed and weight."""
    n = SHOTS * len(CLASSES)
    features = torch.randn(n, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    data = Examples(features.to(backbone.device), (torch.arange(n) % len(CLASSES)).to(backbone.device))
    sentences = tuple(tuple(f"{c} with sign {j} in the image." for j in range(SENTENCES)) for c in CLASSES)
    stack_members = []
    for seed in range(runs):
        knobs = DESCENT | KNOBS["biomedcoop"] | {"sccm_weight": 0.25 * (1 + seed), "epochs": epochs, "warmup_epochs": 0}
        task = Task(backbone, CLASSES, seed, Knowledge(descriptions=sentences))
        model = method("biomedcoop")(task, check_config("biomedcoop", knobs))
        stack_members.append(Member(model, data, data, seed))  # type: ignore[arg-type]
    return stack_members


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--model", choices=("demo-clip", "biomedclip"), default="demo-clip")
    parser.add_argument("--blocks", type=int, default=12, help="of biomedclip's text tower (random weights)")
    parser.add_argument("--epochs", type=int, default=2, help="that are timed")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"cores": cores, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = options.model == "demo-clip"
    backbone = load_backbone("demo-clip", None, device) if small else random_biomedclip(options.blocks, device)
    descend_stacked(members(backbone, 2, 1))
    stacked_members, single_members = (members(backbone, options.runs, options.epochs) for _ in range(2))
    started = time.perf_counter()
    descend_stacked(stacked_members)
    stacked = time.perf_counter() - started
    started = time.perf_counter()
    for member in single_members:
        fit(member.method, member.train, member.val, Run(member.seed))
    single = time.perf_counter() - started
    differences = [
        float((a.method.ctx - b.method.ctx).detach().abs().max())
        for a, b in zip(stacked_members, single_members, strict=True)
    ]
    changes = [float((a.method.ctx.detach() - a.method.prompts.phrase).abs().max()) for a in single_members]
    hours = options.runs * options.epochs / EPOCHS * 3600
    results = {
        "model": options.model, "runs": options.runs, "steps": options.epochs * SHOTS,
        "runs_per_hour_alone": round(hours / single, 1), "runs_per_hour_stacked": round(hours / stacked, 1),
        "ratio": round(single / stacked, 2), "largest_context_difference": max(differences),
        "largest_context_change": max(changes),
    }  # fmt: skip
    print(json.dumps(results))


if __name__ == "__main__":
    main()
