"""DVPT against a reference that runs each image by itself, and compares its prompts with its patches one by one."""

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
    "variant": "paper", "n_prompts": 4, "latent_dim": 3, "share_group": 3, "image_size": None, "optimizer": "adamw",
    "learning_rate": 5e-4, "weight_decay": 1e-4, "warmup_epochs": 0, "warmup_learning_rate": 1e-5, "batch_size": 4,
    "epochs": 2, "clip_norm": 1.0,
}  # fmt: skip


def dvpt(backbone: Any, seed: int = 1, **knobs: Any) -> Any:
    return method("dvpt")(Task(backbone, NAMES, seed), check_config("dvpt", CONFIG | knobs))


def act(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def plain_adapter(model: Any, layer: int, y: Tensor) -> Tensor:
    """What the adapter of a block's group adds to tokens [prompts | class token | patches] behind the attention."""
    adapter, n = model.adapters[layer // model.config.share_group], model.config.n_prompts
    down, up = (lambda z, m=m: z @ m.weight.T + m.bias for m in (adapter.down, adapter.up))
    if model.config.variant == "release_vit":
        return adapter.gate * up(act(down(y)))
    u = [down(act(token)) for token in y]
    rows = []
    for prompt in u[:n]:
        scores = torch.stack([(prompt @ patch) / len(prompt) ** 0.5 for patch in u[n + 1 :]]).softmax(0)
        rows.append(sum(score * patch for score, patch in zip(scores, u[n + 1 :], strict=True)))
    return adapter.gate * torch.stack([up(row) for row in [*rows, *u[n:]]])


def plain_features(model: Any, backbone: Any, images: Tensor) -> Tensor:
    tower, n, features = PlainImages(backbone.model), model.config.n_prompts, []
    for image in images:
        x = tower.start(torch.cat([model.prompt_tokens[0] + model.prompt_positions, tower.tokens(image)]))
        for layer in range(len(tower.blocks)):
            x = tower.block(layer, x, lambda at, y: plain_adapter(model, at, y))
        features.append(tower.finish(x[: n + 1]))
    return torch.stack(features)


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]),
    variant=st.sampled_from(["paper", "release_vit"]),
    layers=st.integers(1, 4),
    share_group=st.integers(1, 3),
    n_prompts=st.integers(1, 5),
    grid=st.integers(2, 3),
    b=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_logits_and_gradients_equal_the_plain_ones(
    make_backbone: Callable[[str], Any],
    *,
    kind: str,
    variant: str,
    layers: int,
    share_group: int,
    n_prompts: int,
    grid: int,
    b: int,
    seed: int,
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind, layers, 1, grid))
    model = dvpt(backbone, seed, variant=variant, n_prompts=n_prompts, share_group=share_group)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in model.adapters:
            adapter.gate += torch.randn(1, generator=generator)
    images, labels = pixels(b, backbone.model, seed), torch.randint(0, 3, (b,), generator=generator)
    batch = Batch(model.prepare(images), labels)
    logits = model(batch)
    model.loss(batch, logits)[0].backward()
    found = gradients(model)

    model.zero_grad()
    expected = plain_features(model, backbone, images) @ model.head.weight.T
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert_gradients_equal(found, gradients(model))


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
@pytest.mark.parametrize("variant", ["paper", "release_vit"])
def test_with_closed_gates_it_is_vpt_shallow_read_out_at_its_prompts_too(
    make_backbone: Callable[[str], Any], kind: str, variant: str
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    model, images = dvpt(backbone, variant=variant), pixels(3, backbone.model)
    found = model.image_features(Batch(model.prepare(images), torch.zeros(3)))

    shallow = {"n_prompts": 4, "depth": 1, "head": "linear", "template": "{}", "momentum": 0.0, "optimizer": "sgd"}
    knobs = {key: CONFIG[key] for key in ("learning_rate", "weight_decay", "warmup_epochs", "warmup_learning_rate")}
    config = check_config("vpt", shallow | knobs | {"batch_size": 4, "epochs": 1})
    vpt = method("vpt")(Task(backbone, NAMES, 1), config)
    vpt.prompts = nn.Parameter(model.prompt_tokens + model.prompt_positions)
    shallow_features = vpt.image_features(Batch(model.prepare(images), torch.zeros(3)))
    tower = PlainImages(backbone.model)
    for image, feature, shallow_feature in zip(images, found, shallow_features, strict=True):
        x = tower.start(torch.cat([vpt.prompts[0], tower.tokens(image)]))
        for layer in range(len(tower.blocks)):
            x = tower.block(layer, x)
        torch.testing.assert_close(feature, tower.finish(x[:5]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shallow_feature, tower.finish(x[4:5]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_images_of_another_size_are_a_matter_of_positions(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind, grid=2))
    model = dvpt(backbone, image_size=16)
    assert model.needed.image_size == 16
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = model.prepare(images)
    assert tokens.shape == (2, 1 + 16, 16)
    assert model(Batch(tokens, torch.zeros(2))).shape == (2, 3)

    visual = backbone.model.visual
    positions = visual.trunk.pos_embed[0] if kind == "bert" else visual.positional_embedding
    resized = F.interpolate(positions[1:].T.reshape(1, 16, 2, 2), (4, 4), mode="bicubic", antialias=True)
    project = visual.trunk.patch_embed.proj if kind == "bert" else visual.conv1
    for row, column in ((0, 0), (1, 2), (3, 3)):
        cut = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        expected = project(cut)[:, :, 0, 0] + resized[0, :, row, column]
        torch.testing.assert_close(tokens[:, 1 + 4 * row + column], expected, atol=1e-5, rtol=1e-5)


def test_a_size_that_is_not_whole_patches_is_refused(make_backbone: Callable[[str], Any]) -> None:
    with pytest.raises(BadParams, match=r"methods\.dvpt .*: image_size: must be a multiple of 4, .* found 18"):
        dvpt(replace(make_backbone("clip"), model=random_model("clip")), image_size=18)


def test_the_published_sizes_have_the_published_number_of_parameters(make_backbone: Callable[[str], Any]) -> None:
    """202 836 for a ViT-B/16 with 50 prompts and width 20; here as formulas, on the small one."""
    backbone = replace(make_backbone("clip"), model=random_model("clip", 4))
    model = dvpt(backbone, n_prompts=50, latent_dim=20)
    count = sum(p.numel() for name, p in model.trainable_parameters().items() if not name.startswith("head"))
    w, groups = 16, 2
    assert count == 2 * 50 * w + groups * (w * 20 + 20 + 20 * w + w + 1)
    w, groups = 768, 4
    assert 2 * 50 * w + groups * (w * 20 + 20 + 20 * w + w + 1) == 202_836
