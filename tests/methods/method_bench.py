"""Small backbones with every method trained on them once, and the settings in which the methods are tested."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from clinprompt.methods import check_config, method, names
from clinprompt.prompting.base import Knowledge, PromptMethod, Task
from clinprompt.prompting.batches import Examples, ReportIds
from clinprompt.training.checkpoint import Curves
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

CLASSES = ("glioma", "large cell carcinoma", "no tumour")
OTHER_CLASSES = ("cyst", "scar", "a bright spot", "nothing at all")
SMALL: dict[str, Any] = {
    "epochs": 4, "batch_size": 6, "learning_rate": 0.01, "warmup_epochs": 1, "n_prompts": 3, "latent_dim": 3,
    "n_ctx_vision": 3, "n_visual": 2, "rank": 2, "prefix_length": 2, "suffix_length": 1, "max_iterations": 200,
    "averaging": {"mean": 3.0, "std": 1.5},
}  # fmt: skip
# What a method's knobs change of what it reads, trains or saves.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("coop", {"class_specific": True, "context_init": None, "optimizer": "adamw", "clip_norm": 0.5}),
    ("biomed_dpt", {"visual": "insert_frozen"}),
    ("biomed_dpt", {"visual": "insert_trainable"}),
    ("vpt", {"depth": 1, "head": "linear"}),
    ("vpt", {"image_size": 24}),
    ("full_finetuning", {"image_size": 24}),
    ("dvpt", {"variant": "release_vit", "image_size": 24}),
    ("lora", {"towers": "text"}),
    ("lora", {"towers": "both"}),
    ("tip_adapter", {"finetune": True}),
    (
        "deft_ad",
        {"clip_image": "after", "heads": 2, "text_prompts": "after_encoder", "mmse_head": "linear", "depth": 1},
    ),
    ("deft_ad", {"head": "linear", "projections": "drawn", "positives": "label", "mmse_head": "linear"}),
    ("cilmp", {"prefix_length": 0, "suffix_length": 0}),
    ("cilmp", {"vision_depth": 0, "averaging": None, "llm_layers": [0, 1, -1], "normalize_rows": True}),
]
CASES = [pytest.param(name, {}, id=name) for name in names()]
CASES += [pytest.param(name, knobs, id=f"{name}-{'-'.join(map(str, knobs.values()))}") for name, knobs in VARIANTS]


@dataclass(frozen=True)
class Bench:
    """A backbone, and methods on it, each trained once; tests must not change those.

    Attributes:
        weights: the backbone's, as they were before any training.
    """

    backbone: Any
    weights: dict[str, Tensor]
    trained_models: dict[str, tuple[PromptMethod, Curves]] = field(default_factory=dict)

    @classmethod
    def of(cls, backbone: Any) -> "Bench":
        """A bench without trained models."""
        return cls(backbone, {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()})

    def pixels(self, model: PromptMethod, n: int, seed: int = 0) -> Tensor:
        """Random images of the size that the method asks for."""
        side = model.needed.image_size or self.backbone.model.visual.image_size
        side = side[0] if isinstance(side, tuple) else side
        return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def examples(self, model: PromptMethod, n: int = 12, seed: int = 0) -> Examples:
        """Random images at the level that the method says it needs."""
        pixels, labels = self.pixels(model, n, seed), torch.arange(n) % len(CLASSES)
        wanted = model.needed.images == "pixels"
        inputs = model.prepare(pixels) if wanted else self.backbone.model.encode_image(pixels)
        if model.needed.reports is None:
            return Examples(inputs, labels)
        texts = [text for label in labels.tolist() for text in (f"{CLASSES[label]} {label}", f"size {label}")]
        reports = ReportIds(self.backbone.tokenize(texts).unflatten(0, (n, 2)), (0.5, 0.5))
        scores = torch.where(labels == 1, torch.nan, 30.0 - labels)
        return Examples(inputs, labels, reports=reports, scores=scores)

    def build(
        self, name: str, knobs: dict[str, Any], classes: tuple[str, ...] = CLASSES, seed: int = 1
    ) -> PromptMethod:
        """A method, given no more knowledge than it says it needs."""
        cls = method(name)
        config = check_config(name, {k: v for k, v in SMALL.items() if k in cls.Config.model_fields} | knobs)
        needed, generator = cls.needs(config).knowledge, torch.Generator().manual_seed(len(classes))
        sentences = tuple((f"{c} bright and round", f"{c} dark", "no rim")[: 2 + i % 2] for i, c in enumerate(classes))
        states = tuple(torch.randn(4 + i % 2, 10, generator=generator) for i in range(len(classes)))
        knowledge = Knowledge(
            sentences if "descriptions" in needed else (), states if "hidden_states" in needed else ()
        )
        return cls(Task(self.backbone, classes, seed, knowledge), config)

    def fit(self, name: str, knobs: dict[str, Any], **run: Any) -> tuple[PromptMethod, Curves]:
        """A method trained on 12 images, and its curves."""
        model = self.build(name, knobs)
        curves = fit(model, self.examples(model), self.examples(model, 7, 1), Run(3, **run))
        return model, curves

    def trained(self, name: str, knobs: dict[str, Any]) -> tuple[PromptMethod, Curves]:
        """The same, ready to predict, made once."""
        key = f"{name} {knobs}"
        if key not in self.trained_models:
            model, curves = self.fit(name, knobs)
            self.trained_models[key] = model.eval(), curves
        return self.trained_models[key]
