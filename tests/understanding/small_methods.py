"""Small random backbones of both kinds, and methods on them."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from plain_towers import CONTEXT, EMBED, VOCABULARY, random_model

from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task

NAMES = ("glioma", "no tumour", "pituitary adenoma")
_DESCENT = {
    "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "warmup_epochs": 0, "warmup_learning_rate": 1e-5,
    "batch_size": 4, "epochs": 2,
}  # fmt: skip
_CONTEXT = _DESCENT | {"n_ctx": 4, "context_init": "a photo of a", "class_position": "end"}
_SENTENCE = {"template": "a photo of a {}."}
KNOBS: dict[str, dict[str, Any]] = {
    "cocoop": _CONTEXT,
    "vpt": _DESCENT | _SENTENCE | {"n_prompts": 3, "depth": None, "head": "cosine"},
    "lora": _DESCENT | _SENTENCE | {"towers": "both", "targets": ["query", "value"], "rank": 2, "alpha": 2.0},
    "maple": _DESCENT | _SENTENCE | {"n_ctx": 2, "depth": None},
    "dvpt": {k: v for k, v in _DESCENT.items() if k != "momentum"}
    | {"variant": "paper", "n_prompts": 3, "latent_dim": 4, "share_group": 3, "image_size": None},
    "full_finetuning": _DESCENT,
    "biomed_dpt": _DESCENT
    | {
        "n_ctx": 4, "class_position": "end", "template": "a photo of a {}.", "visual": "replace_patches",
        "n_visual": 2, "l1_weight": 1.0, "kl_weight": 1.0,
    },
    "cilmp": _DESCENT
    | {
        "n_ctx": 4, "context_init": "a photo of a", "n_ctx_vision": 3, "text_depth": None, "vision_depth": None,
        "prefix_length": 2, "suffix_length": 2, "rank": 3, "dropout": 0.0, "llm_layers": None, "normalize_rows": False,
        "averaging": None,
    },
}  # fmt: skip


@dataclass
class SmallBackbone:
    """What methods use of a backbone."""

    model: Any
    start: int
    end: int
    name: str = "small"
    digest: str = "0" * 64
    embed_dim: int = EMBED
    logit_scale: float = 20.0
    unknown_id: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    words: dict[str, int] = field(default_factory=dict)

    @cached_property
    def text(self) -> TextTower:
        return TextTower(self.model)

    @cached_property
    def vision(self) -> VisionTower:
        return VisionTower(self.model)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        ids = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            words = re.findall(r"\w+|[^\w\s]", text)[: CONTEXT - 2]
            found = [self.words.setdefault(word, 5 + len(self.words)) for word in words]
            row[: len(found) + 2] = torch.tensor([self.start, *found, self.end])
        return ids


def small_backbone(kind: str) -> SmallBackbone:
    """open_clip's ViT with its causal text tower ("clip"), or timm's ViT with a BERT ("bert")."""
    ends = {"clip": (VOCABULARY - 2, VOCABULARY - 1), "bert": (2, 3)}[kind]
    return SmallBackbone(random_model(kind), *ends)


def small_method(backbone: Any, name: str, shake: float = 0.3, rows: tuple[int, ...] = (6, 6, 6), **knobs: Any) -> Any:
    """A method on the backbone, its parameters far from their initial values."""
    generator = torch.Generator().manual_seed(3)
    states = tuple(torch.randn(n, 20, generator=generator) for n in rows)
    knowledge = Knowledge((("a round mass", "bright"), ("a normal brain",), ("small", "low")), states)
    model = method(name)(Task(backbone, NAMES, 1, knowledge), check_config(name, KNOBS[name] | knobs)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(shake * torch.randn(parameter.shape, generator=generator))
    return model
