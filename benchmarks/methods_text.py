"""Methods that tune a text context on cached features, against steps with the published trainers' structure.

    python -m benchmarks.methods_text [--full] [--only biomedcoop] [--repeats 3]

Both compute the same loss and gradients in one run: here from cached features and cropped prompts, there with the image
tower in each step, whole contexts, and a loop over images or sentences (`benchmarks/plain/text.py`). Prints one JSON
object per method: FLOPs of a forward and backward pass (torch's counter), seconds, their ratios (aims at full size:
Biomed-DPT 20, BiomedCoOp 40, CoCoOp 25 times fewer FLOPs), and the largest relative difference of a gradient.
Without --full the towers have two blocks of BERT-base's and ViT-B/16's twelve, at full width, which leaves the ratio
of FLOPs as it is. C = 4, B = 4, 50 sentences per class, random weights.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain.text import Plain
from clinprompt.backbones.load import Backbone, Built
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.batches import Batch

CLASSES = ("glioma tumor", "meningioma tumor", "normal brain", "pituitary tumor")
BATCH_SIZE, SENTENCES, CONTEXT, CLINICAL = 4, 50, "a photo of a", "a MR photo of a {} in the brain."
DESCENT = {
    "learning_rate": 0.0025, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 1, "warmup_learning_rate": 1e-5,
    "batch_size": BATCH_SIZE, "epochs": 1, "class_position": "end",
}  # fmt: skip
KNOBS: dict[str, dict[str, Any]] = {
    "biomed_dpt": {
        "n_ctx": 5, "template": CLINICAL, "visual": "replace_patches", "n_visual": 4, "l1_weight": 12.5,
        "kl_weight": 0.25,
    },
    "biomedcoop": {
        "n_ctx": 4, "context_init": CONTEXT, "sccm_weight": 0.5, "kdsp_weight": 0.25, "tau": 1.5,
    },
    "cocoop": {"n_ctx": 4, "context_init": CONTEXT},
}  # fmt: skip


class Words:
    """A tokeniser of whole words for a random text tower."""

    def __init__(self, context: int) -> None:
        self.context, self.known = context, {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2}

    def __call__(self, texts: list[str]) -> Tensor:
        ids = torch.zeros(len(texts), self.context, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            words = ["[CLS]", *text.replace(".", " .").split(), "[SEP]"]
            row[: len(words)] = torch.tensor([self.known.setdefault(word, len(self.known)) for word in words])
        return ids


def random_biomedclip(blocks: int, device: str = "cpu") -> Backbone:
    """BiomedCLIP's shapes, BERT-base of 256 tokens and ViT-B/16, with random weights and so many blocks in each."""
    bert = {"model_type": "bert", "vocab_size": 512, "num_hidden_layers": blocks, "pad_token_id": 0}
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        Path(folder, "config.json").write_text(json.dumps(bert))
        text = {
            "hf_model_name": folder, "hf_model_pretrained": False, "hf_pooler_type": "cls_last_hidden_state_pooler",
            "hf_proj_type": "mlp", "context_length": 256,
        }  # fmt: skip
        vision = {"image_size": 224, "layers": blocks, "width": 768, "head_width": 64, "patch_size": 16}
        torch.manual_seed(0)
        model = open_clip.CustomTextCLIP(embed_dim=512, vision_cfg=vision, text_cfg=text)
    return Backbone(
        name="random", digest="0" * 64, build=lambda: Built(model, Words(256), 85.2),
        preprocessing=Preprocessing(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), embed_dim=512, card=None,
        folder=Path(), device=torch.device(device),
    )  # fmt: skip


class Pair:
    """One method's step both ways, on the same images."""

    def __init__(self, name: str, backbone: Backbone) -> None:
        generator = torch.Generator().manual_seed(0)
        sentences = tuple(tuple(f"{c} with sign {j} in the image." for j in range(SENTENCES)) for c in CLASSES)
        task = Task(backbone, CLASSES, 0, Knowledge(descriptions=sentences))
        self.name, self.method = name, method(name)(task, check_config(name, DESCENT | KNOBS[name]))
        self.pixels = torch.randn(BATCH_SIZE, 3, 224, 224, generator=generator)
        self.labels = torch.arange(BATCH_SIZE) % len(CLASSES)
        with torch.no_grad():
            images = self.method.needed.images
            inputs = (
                self.method.prepare(self.pixels) if images == "pixels" else backbone.model.encode_image(self.pixels)
            )
            self.bank = [
                backbone.text.encode_ids(backbone.tokenize(list(class_sentences))) for class_sentences in sentences
            ]
        self.batch = Batch(inputs, self.labels)
        template = CLINICAL if name == "biomed_dpt" else f"{CONTEXT} {{}}."
        ids = backbone.tokenize([template.replace("{}", c) for c in CLASSES])
        self.plain = Plain(backbone.model, ids, backbone.logit_scale)

    def fast(self) -> None:
        """The method's own step."""
        loss, _ = self.method.loss(self.batch, self.method(self.batch))
        loss.backward()

    def slow(self) -> None:
        """The plain step."""
        model: Any = self.method
        arguments: dict[str, dict[str, Any]] = {
            "biomed_dpt": {"bank": self.bank, "l1": 12.5, "kl": 0.25, "n_visual": 4},
            "biomedcoop": {"bank": self.bank, "sccm": 0.5, "kdsp": 0.25, "tau": 1.5},
            "cocoop": {"meta_net": getattr(model, "meta_net", None)},
        }
        _, loss_terms = getattr(self.plain, self.name)(model.ctx, self.pixels, self.labels, **arguments[self.name])
        sum(loss_terms.values(), torch.tensor(0.0)).backward()

    def gradient(self, step: Callable[[], None]) -> Tensor:
        """The context's gradient [n_ctx, d] after one step."""
        self.method.zero_grad()
        step()
        gradient: Tensor = self.method.ctx.grad.clone()
        return gradient


def flops(step: Callable[[], None]) -> int:
    """Of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def seconds(step: Callable[[], None], repeats: int) -> float:
    """The median over some repeats."""
    durations = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def compare(name: str, backbone: Backbone, repeats: int) -> dict[str, Any]:
    """Both ways' FLOPs and seconds, and how far their gradients are apart."""
    pair = Pair(name, backbone)
    gradients: list[Tensor] = []
    counts = [flops(lambda step=step: gradients.append(pair.gradient(step))) for step in (pair.fast, pair.slow)]
    fast, slow = gradients
    times = seconds(pair.fast, repeats), seconds(pair.slow, repeats)
    return {
        "gflop": round(counts[0] / 1e9, 2),
        "plain_gflop": round(counts[1] / 1e9, 1),
        "flop_ratio": round(counts[1] / counts[0], 1),
        "seconds": round(times[0], 4),
        "plain_seconds": round(times[1], 3),
        "time_ratio": round(times[1] / times[0], 1),
        "gradient_difference": float((fast - slow).abs().max() / slow.abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all twelve blocks")
    parser.add_argument("--only", choices=KNOBS, help="measure this method alone")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    blocks = 12 if options.full else 2
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"cores": cores, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}))
    backbone = random_biomedclip(blocks)
    for name in KNOBS:
        if options.only in (None, name):
            comparison = compare(name, backbone, options.repeats)
            print(json.dumps({"method": name, "blocks": blocks, **comparison}), flush=True)


if __name__ == "__main__":
    main()
