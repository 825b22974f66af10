"""LoRA against the whole model with its changes added to the weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_towers import assert_gradients_equal, gradients, pixels, random_model
from torch import Tensor

from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Head, Task
from clinprompt.prompting.batches import Batch

CONFIG: dict[str, Any] = {
    "towers": "both", "targets": ["query", "value"], "rank": 2, "alpha": 1.0, "template": "a photo of a {}.",
    "optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 0.01, "warmup_epochs": 0,
    "warmup_learning_rate": 1e-5, "batch_size": 4, "epochs": 2,
}  # fmt: skip
ORDER = ("query", "key", "value")
BLOCKS = {
    "clip": ("visual.transformer.resblocks", "transformer.resblocks"),
    "bert": ("visual.trunk.blocks", "text.transformer.encoder.layer"),
    "mean": ("visual.transformer.resblocks", "text.transformer.encoder.layer"),
}


def lora(backbone: Any, names: tuple[str, ...], seed: int = 1, **knobs: Any) -> Any:
    return method("lora")(Task(backbone, names, seed), check_config("lora", CONFIG | knobs))


def changed_weights(model: Any, backbone: Any, kind: str) -> dict[str, Tensor]:
    """The model's weights by name, with alpha / r B A added block by block and target by target."""
    weights = dict(backbone.model.named_parameters())
    for place, tower in enumerate(("image_tower", "text_tower")):
        deltas = getattr(model, tower, None)
        for layer in range(0 if deltas is None else len(deltas.up)):
            for number, target in enumerate(deltas.targets):
                change = model.config.alpha / model.config.rank * deltas.up[layer, number] @ deltas.down[layer, number]
                block = f"{BLOCKS[kind][place]}.{layer}"
                if f"{block}.attention.self.{target}.weight" in weights:
                    name = f"{block}.attention.self.{target}.weight"
                    weights[name] = weights[name] + change
                    continue
                name = f"{block}.attn.in_proj_weight" if kind != "bert" else f"{block}.attn.qkv.weight"
                parts = list(weights[name].split(len(change)))
                parts[ORDER.index(target)] = parts[ORDER.index(target)] + change
                weights[name] = torch.cat(parts)
    return weights


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    towers=st.sampled_from(["image", "text", "both"]),
    targets=st.lists(st.sampled_from(ORDER), min_size=1, max_size=3),
    rank=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    b=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_logits_and_gradients_equal_those_of_a_model_with_changed_weights(
    make_backbone: Callable[[str], Any],
    *,
    kind: str,
    sizes: tuple[int, int],
    towers: str,
    targets: list[str],
    rank: int,
    lengths: list[int],
    b: int,
    seed: int,
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind, *sizes))
    rng = np.random.default_rng(seed)
    names = tuple(" ".join([*(f"w{rng.integers(20)}" for _ in range(n - 1)), f"v{i}"]) for i, n in enumerate(lengths))
    model = lora(backbone, names, seed, towers=towers, targets=targets, rank=rank, alpha=3.0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.from_numpy(rng.normal(size=tuple(p.shape))).float())
    images, labels = pixels(b, backbone.model, seed), torch.from_numpy(rng.integers(0, len(names), b))
    plain = towers == "text"
    batch = Batch(backbone.model.encode_image(images) if plain else model.prepare(images), labels)
    logits = model(batch)
    model.loss(batch, logits)[0].backward()
    found = gradients(model)

    model.zero_grad()
    ids = backbone.tokenize([f"a photo of a {name}." for name in names])
    weights = changed_weights(model, backbone, kind)
    v, t, *_ = torch.func.functional_call(backbone.model, weights, (images, ids))
    expected = backbone.logit_scale * v @ t.T
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert_gradients_equal(found, gradients(model))


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_untrained_it_is_zero_shot_and_only_the_changes_are_kept(
    make_backbone: Callable[[str], Any], kind: str
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    names, images = ("glioma", "no tumour"), pixels(3, backbone.model)
    model = lora(backbone, names)
    ids = backbone.tokenize([f"a photo of a {name}." for name in names])
    v, t = backbone.model.encode_image(images), backbone.model.encode_text(ids)
    expected = backbone.logit_scale * F.normalize(v, dim=-1) @ F.normalize(t, dim=-1).T
    torch.testing.assert_close(model(Batch(model.prepare(images), torch.zeros(3))), expected, atol=1e-4, rtol=1e-5)
    shapes = {name: tuple(t.shape) for name, t in model.state().items()}
    width = backbone.text.width
    assert shapes == {
        "image_tower.down": (3, 2, 2, 16), "image_tower.up": (3, 2, 16, 2),
        "text_tower.down": (3, 2, 2, width), "text_tower.up": (3, 2, width, 2),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_dropout_is_of_the_tokens_that_the_changes_read_and_of_training_alone(
    make_backbone: Callable[[str], Any], kind: str
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    models = [lora(backbone, ("glioma", "cyst"), targets=["query", "value"], dropout=p) for p in (0.0, 1e-12, 0.5)]
    generator = torch.Generator().manual_seed(3)
    state = {name: torch.randn(t.shape, generator=generator) * 0.1 for name, t in models[0].state().items()}
    for model in models:
        model.load_state(state)
    batch = Batch(models[0].prepare(pixels(2, backbone.model)), torch.zeros(2))
    plain, hardly, dropped = (model.train()(batch) for model in models)
    torch.testing.assert_close(hardly, plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(dropped, plain, atol=1e-3)
    torch.testing.assert_close(models[2].eval()(batch), plain, atol=1e-5, rtol=1e-5)


def test_the_changes_are_divided_by_the_rank_or_by_its_root(make_backbone: Callable[[str], Any]) -> None:
    scales = [
        lora(make_backbone("clip"), ("a", "b"), rank=4, alpha=6.0, scaling=scaling).image_tower.scale
        for scaling in ("rank", "sqrt_rank")
    ]
    assert scales == [1.5, 3.0]


def test_changes_of_the_text_tower_alone_are_a_head_on_plain_features(make_backbone: Callable[[str], Any]) -> None:
    backbone = make_backbone("clip")
    model = lora(backbone, ("a", "b"), towers="text")
    with torch.no_grad():
        model.text_tower.up += 0.1
    features = torch.randn(3, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    head = model.export_head()
    assert model.needed.images == "features"
    torch.testing.assert_close(
        Head(head["weight"], float(head["scale"])).logits(features), model(Batch(features, torch.zeros(3)))
    )
    assert lora(backbone, ("a", "b")).export_head() is None
