"""Tiny random backbones with a tokeniser of whole words, for the methods' tests."""

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from tune_workspace import Workspace

from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.prompting.batches import Examples

T, VOCABULARY, E = 24, 64, 12
VISION = {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8}


@dataclass
class TinyBackbone:
    """What methods use of a backbone. Words get ids as they come; `start` and `end` as the kind of tower wants them."""

    model: Any
    start: int
    end: int
    name: str = "tiny"
    digest: str = "0" * 64
    embed_dim: int = E
    logit_scale: float = 20.0
    unknown_id: int | None = None
    words: dict[str, int] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def text(self) -> TextTower:
        return TextTower(self.model)

    @property
    def vision(self) -> VisionTower:
        return VisionTower(self.model)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        ids = torch.zeros(len(texts), T, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            words = re.findall(r"\w+|[^\w\s]", text)[: T - 2]
            found = [self.words.setdefault(word, 5 + len(self.words)) for word in words]
            row[: len(found) + 2] = torch.tensor([self.start, *found, self.end])
        return ids


def _clip() -> TinyBackbone:
    text = {"context_length": T, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 2}
    model = open_clip.CLIP(embed_dim=E, vision_cfg=dict(VISION), text_cfg=text)
    return TinyBackbone(model, VOCABULARY - 2, VOCABULARY - 1)


def _bert(pooler: str = "cls_last_hidden_state", **vision: Any) -> TinyBackbone:
    config = {
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": T, "pad_token_id": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        text = {"hf_model_name": folder, "hf_model_pretrained": False, "hf_pooler_type": f"{pooler}_pooler"}
        text |= {"context_length": T, "hf_proj_type": "linear" if pooler == "mean" else "mlp"}
        model = open_clip.CustomTextCLIP(embed_dim=E, vision_cfg=VISION | vision, text_cfg=text)
    return TinyBackbone(model, 2, 3)


def _mean() -> TinyBackbone:
    return _bert("mean", ls_init_value=0.5, no_ln_pre=True, norm_kwargs={"eps": 1e-6})


def tiny(kind: str) -> TinyBackbone:
    """A random backbone, the same one each time.

    Its text tower is causal ("clip"), or sees all of a text and is read out at its first token ("bert") or as the mean
    of its tokens ("mean", beside an image tower with layer scale, as DINOv2 has).
    """
    with torch.random.fork_rng():
        torch.manual_seed(7)
        backbone = {"clip": _clip, "bert": _bert, "mean": _mean}[kind]()
        for p in backbone.model.parameters():  # far from the small initial values, so that differences show
            p.data += 0.1 * torch.randn_like(p)
    backbone.model.eval().requires_grad_(False)
    return backbone


@pytest.fixture(scope="session")
def make_backbone() -> Callable[[str], TinyBackbone]:
    return tiny


@pytest.fixture(scope="session")
def make_examples() -> Callable[..., Examples]:
    def make(n: int, classes: int, seed: int = 0, spread: float = 1.0) -> Examples:
        rng = np.random.default_rng([3, seed])
        centres = np.random.default_rng(2).normal(size=(classes, E))
        labels = np.arange(n) % classes
        return Examples.of(centres[labels] + spread * rng.normal(size=(n, E)), labels)

    return make


@pytest.fixture
def workspace(tmp_path: Path, backbone_folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A folder on which `tune` is run."""
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, backbone_folder, yaml.safe_load((root / "params.yaml").read_text()))
