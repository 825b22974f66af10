"""What holds for every method with trained tensors in the image tower: repeatable, resumable, complete when saved."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_towers import pixels, random_model

from clinprompt.errors import Interrupted
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch, Examples, epoch_rows
from clinprompt.training.augmentation import CropFlip
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("glioma", "no tumour", "pituitary adenoma")
DESCENT: dict[str, Any] = {
    "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.001, "warmup_epochs": 1, "warmup_learning_rate": 1e-3,
    "batch_size": 5, "epochs": 4,
}  # fmt: skip
ADAMW = {"optimizer": "adamw", "momentum": 0.0, "learning_rate": 1e-3, "clip_norm": 1.0, "epsilon": 1e-3}
DVPT = {"n_prompts": 3, "latent_dim": 3, "share_group": 2, "image_size": None}
TEMPLATE = {"template": "a photo of a {}."}
LORA = {"targets": ["query", "value"], "rank": 2, "alpha": 1.0, **TEMPLATE}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vpt shallow": ("vpt", {"n_prompts": 3, "depth": 1, "head": "cosine", **TEMPLATE}),
    "vpt deep": ("vpt", {"n_prompts": 3, "depth": None, "head": "linear", **TEMPLATE}),
    "maple": ("maple", {"n_ctx": 2, "depth": None, **TEMPLATE}),
    "dvpt": ("dvpt", {"variant": "paper", **DVPT, **ADAMW}),
    "dvpt released": ("dvpt", {"variant": "release_vit", **DVPT, **ADAMW}),
    "lora": ("lora", {"towers": "both", **LORA, **ADAMW}),
    "lora image": ("lora", {"towers": "image", **LORA, **ADAMW}),
    "full fine-tuning": ("full_finetuning", ADAMW),
}


@pytest.fixture(params=["clip", "bert"])
def backbone(request: pytest.FixtureRequest, make_backbone: Callable[[str], Any]) -> Any:
    return replace(make_backbone(request.param), model=random_model(request.param))


def build(backbone: Any, case: str, **knobs: Any) -> Any:
    name, own = CASES[case]
    return method(name)(Task(backbone, NAMES, 1), check_config(name, DESCENT | own | knobs))


def examples(backbone: Any, model: Any, n: int = 12, augmented: bool = False) -> Examples:
    images, labels = pixels(n, backbone.model), torch.arange(n) % 3
    if augmented:
        return CropFlip(images, labels, model.prepare)
    return Examples(model.prepare(images), labels)


def train(backbone: Any, case: str, augmented: bool = False, **run: Any) -> tuple[list[Any], dict[str, Any]]:
    model = build(backbone, case)
    data = examples(backbone, model, augmented=augmented)
    curves = fit(model, data, examples(backbone, model, 4), Run(3, **run))
    return curves, model.state()


def assert_same(found: tuple[list[Any], dict[str, Any]], expected: tuple[list[Any], dict[str, Any]]) -> None:
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(found[1][name], tensor) for name, tensor in expected[1].items())


@pytest.mark.parametrize("case", CASES)
def test_two_runs_and_a_resumed_one_give_the_same_bytes_and_leave_the_backbone_alone(
    backbone: Any, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    first = train(backbone, case)
    start = build(backbone, case).state()
    assert any(not torch.equal(first[1][name], tensor) for name, tensor in start.items())
    assert_same(train(backbone, case), first)

    def rows(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        if epoch == 3:
            raise Interrupted("stopped by SIGTERM")
        return epoch_rows(n, batch_size, seed, epoch)

    checkpoint = Checkpoint(tmp_path / "c", every=2, identity="a")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("clinprompt.training.loop.epoch_rows", rows)
        train(backbone, case, checkpoint=checkpoint)
    assert checkpoint.path.exists()
    assert_same(train(backbone, case, checkpoint=checkpoint), first)
    assert all(torch.equal(p, before[name]) for name, p in backbone.model.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_the_state_is_the_whole_model(backbone: Any, case: str) -> None:
    model = build(backbone, case)
    data = examples(backbone, model)
    fit(model, data, data, Run(3))
    again = build(backbone, case)
    again.load_state(model.state())
    batch = data.batch(slice(None))
    assert set(model.trainable_parameters()) <= set(model.state())
    assert torch.equal(again.eval()(batch), model.eval()(batch))


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_give_the_training_of_the_whole_batch(backbone: Any, case: str) -> None:
    curves, state = train(backbone, case, augmented=True)
    found_curves, found = train(backbone, case, augmented=True, micro_batches=3)
    for name, tensor in state.items():
        # AdamW divides by the gradient: where that is rounding noise, steps of up to its rate differ.
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4)
    for row, other in zip(found_curves, curves, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-4)


@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_full_finetuning_starts_at_the_backbone_and_trains_all_of_its_copy(
    make_backbone: Callable[[str], Any], kind: str
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    model, images, labels = build(backbone, "full fine-tuning"), pixels(4, backbone.model), torch.tensor([0, 1, 2, 0])
    visual = backbone.model.visual
    expected = visual(images) @ model.head.weight.T + model.head.bias
    logits = model(Batch(model.prepare(images), labels))
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-6)
    F.cross_entropy(logits, labels).backward()
    trained = model.trainable_parameters()
    assert {name.removeprefix("tower.") for name in trained if name.startswith("tower.")} == set(
        dict(visual.named_parameters())
    )
    assert sum(bool(p.grad is not None and p.grad.abs().sum() > 0) for p in trained.values()) >= 0.9 * len(trained)
    assert not any(m.training for m in model.train().tower.modules())
