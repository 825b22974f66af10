"""VPT against a reference that runs each image's whole sequence, token replaced by token."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_towers import PlainImages, assert_gradients_equal, gradients, pixels, random_model
from torch import Tensor, nn

from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch

NAMES = ("glioma", "no tumour", "pituitary adenoma")
CONFIG: dict[str, Any] = {
    "n_prompts": 3, "depth": None, "head": "cosine", "template": "a photo of a {}.", "learning_rate": 0.05,
    "momentum": 0.9, "weight_decay": 0.0, "warmup_epochs": 0, "warmup_learning_rate": 1e-5, "batch_size": 4,
    "epochs": 2,
}  # fmt: skip


def vpt(backbone: Any, seed: int = 1, **knobs: Any) -> Any:
    return method("vpt")(Task(backbone, NAMES, seed), check_config("vpt", CONFIG | knobs))


def plain_features(model: Any, images: Tensor, prompts: Tensor, noise: Callable[[Tensor], Tensor] | None) -> Tensor:
    tower, n, features = PlainImages(model), prompts.shape[1], []
    for image in images:
        tokens = tower.tokens(image)
        tokens = torch.cat([tokens[:1], prompts[0], tokens[1:]])
        later = {layer: prompts[layer] for layer in range(1, len(prompts))}
        features.append(tower.encode(tokens, slice(1, 1 + n), later, noise))
    return torch.stack(features)


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]),
    layers=st.integers(1, 3),
    depth=st.integers(1, 3),
    n_prompts=st.integers(1, 5),
    grid=st.integers(2, 3),
    b=st.integers(1, 3),
    head=st.sampled_from(["cosine", "linear"]),
    seed=st.integers(0, 99),
)
def test_logits_and_gradients_equal_the_plain_ones_whatever_becomes_of_replaced_prompts(
    make_backbone: Callable[[str], Any],
    *,
    kind: str,
    layers: int,
    depth: int,
    n_prompts: int,
    grid: int,
    b: int,
    head: str,
    seed: int,
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind, layers, 1, grid))
    model = vpt(backbone, seed, n_prompts=n_prompts, depth=min(depth, layers), head=head)
    generator = torch.Generator().manual_seed(seed)
    images, labels = pixels(b, backbone.model, seed), torch.randint(0, 3, (b,), generator=generator)
    batch = Batch(model.prepare(images), labels)
    logits = model(batch)
    model.loss(batch, logits)[0].backward()
    found = gradients(model)

    model.zero_grad()
    features = plain_features(
        backbone.model, images, model.prompts, lambda x: x + 10 * torch.randn(x.shape, generator=generator)
    )
    if head == "linear":
        expected = features @ model.head.weight.T + model.head.bias
    else:
        ids = backbone.tokenize([f"a photo of a {name}." for name in NAMES])
        text = F.normalize(backbone.model.encode_text(ids), dim=-1)
        expected = backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert_gradients_equal(found, gradients(model))


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_without_prompts_it_is_the_backbone(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    model, images = vpt(backbone, depth=1), pixels(3, backbone.model)
    model.prompts = nn.Parameter(torch.empty(1, 0, backbone.vision.width))
    found = model.image_features(Batch(model.prepare(images), torch.zeros(3)))
    torch.testing.assert_close(found, backbone.model.encode_image(images), atol=1e-5, rtol=1e-5)


def test_initial_prompts_are_uniform_within_the_papers_bound_and_depend_on_the_seed_alone(
    make_backbone: Callable[[str], Any],
) -> None:
    backbone = replace(make_backbone("clip"), model=random_model("clip"))
    first, again, other = (vpt(backbone, seed, n_prompts=200).prompts.detach() for seed in (1, 1, 2))
    bound = math.sqrt(6 / (3 * 4 * 4 + 16))
    assert first.shape == (3, 200, 16)
    assert float(first.abs().max()) <= bound
    assert first.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_depth_than_blocks_is_refused(make_backbone: Callable[[str], Any]) -> None:
    with pytest.raises(BadParams, match=r"methods\.vpt .*: depth: must be at most 3, .* found 4"):
        vpt(replace(make_backbone("clip"), model=random_model("clip")), depth=4)
