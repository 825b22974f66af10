"""Methods made for images run on volumes: the tower of M3D-CLIP is opened up in the same way."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run
from clinprompt.tuned.restore import logits

CLASSES = ("healthy", "atrophy")
SMALL: dict[str, Any] = {
    "epochs": 40, "batch_size": 6, "learning_rate": 0.05, "warmup_epochs": 1, "n_prompts": 3, "latent_dim": 3,
    "rank": 2, "head": "linear",
}  # fmt: skip
WORDS: list[str] = []


def tokenize(texts: list[str]) -> Tensor:
    """Ids of words as they come, between a first and a last token, padded to 16."""
    rows = torch.zeros(len(texts), 16, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        words = text.lower().replace(".", " .").split()
        WORDS.extend(word for word in words if word not in WORDS)
        ids = [1, *(3 + WORDS.index(word) for word in words), 2]
        row[: len(ids)] = torch.tensor(ids)
    return rows


@pytest.fixture
def backbone(make_m3d: Callable[[int], Any]) -> Any:
    """A random M3D-CLIP of two blocks for volumes of 4 x 8 x 8 voxels."""
    model = make_m3d(1)
    return SimpleNamespace(
        name="tiny-volumes", model=model, text=TextTower(model), vision=VisionTower(model), tokenize=tokenize,
        logit_scale=10.0, embed_dim=12, device=torch.device("cpu"), unknown_id=None,
    )  # fmt: skip


def scans(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Volumes that rise from one side to the other, in the one class forwards and in the other backwards; labels."""
    labels = torch.arange(n) % 2
    noise = torch.rand(n, 1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 4, 8, 8)
    return noise + ramp * (2 * labels - 1).reshape(-1, 1, 1, 1, 1), labels


@pytest.mark.parametrize("name", ["linear_probe", "vpt", "dvpt", "lora", "full_finetuning"])
def test_a_method_for_images_learns_on_volumes(backbone: Any, name: str) -> None:
    cls = method(name)
    model = cls(
        Task(backbone, CLASSES, 1), check_config(name, {k: v for k, v in SMALL.items() if k in cls.Config.model_fields})
    )

    def examples(n: int, seed: int) -> Examples:
        volumes, labels = scans(n, seed)
        with torch.no_grad():
            wanted = model.needed.images == "pixels"
            return Examples(model.prepare(volumes) if wanted else backbone.model.encode_image(volumes), labels)

    fit(model, examples(24, 0), examples(8, 1), Run(1))
    held_out = examples(24, 2)
    with torch.no_grad():
        found = logits(model.eval(), held_out.inputs).argmax(-1)
    assert float((found == held_out.labels).float().mean()) > 0.9
