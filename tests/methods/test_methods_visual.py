"""Full fine-tuning against the image tower that it is a copy of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_towers import pixels, random_model

from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch

NAMES = ("glioma", "no tumour", "pituitary adenoma")


@pytest.mark.parametrize("image_size", [None, 16])
@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_full_finetuning_starts_at_the_backbone_and_trains_all_of_its_copy(
    make_backbone: Callable[[str], Any], kind: str, image_size: int | None
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    config = check_config("full_finetuning", {"image_size": image_size})
    model = method("full_finetuning")(Task(backbone, NAMES, 1), config)
    images, labels = pixels(4, backbone.model), torch.tensor([0, 1, 2, 0])
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


@pytest.mark.parametrize("name", ["vpt", "full_finetuning"])
def test_images_of_another_size_are_asked_for_and_the_positions_follow(
    make_backbone: Callable[[str], Any], name: str
) -> None:
    backbone = make_backbone("clip")
    visual = backbone.model.visual
    size = 2 * visual.image_size[0]
    model = method(name)(Task(backbone, NAMES, 1), check_config(name, {"image_size": size}))
    assert model.needed.image_size == size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    logits = model(Batch(model.prepare(images), torch.tensor([0, 1])))
    assert logits.shape == (2, 3)
    if name == "full_finetuning":  # nothing stands among its patches: the tower itself, opened up
        features = backbone.vision.encode([backbone.vision.embed(images)])
        torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)
