"""MaPLe against a reference that runs each image and each class's whole context by itself."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_towers import PlainImages, assert_gradients_equal, gradients, pixels, plain_text_feature, random_model

from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch

CONFIG: dict[str, Any] = {
    "n_ctx": 2, "depth": None, "template": "a photo of a {}.", "learning_rate": 0.05, "momentum": 0.9,
    "weight_decay": 0.0005, "warmup_epochs": 0, "warmup_learning_rate": 1e-5, "batch_size": 4, "epochs": 2,
}  # fmt: skip


def maple(backbone: Any, names: tuple[str, ...], seed: int = 1, **knobs: Any) -> Any:
    return method("maple")(Task(backbone, names, seed), check_config("maple", CONFIG | knobs))


def plain_logits(model: Any, backbone: Any, names: tuple[str, ...], images: torch.Tensor) -> torch.Tensor:
    prompts = [model.ctx, *model.text_prompts]
    visual = [couple(p) for couple, p in zip(model.couplings, prompts, strict=True)]
    later = {layer: prompts[layer] for layer in range(1, len(prompts))}
    ids = backbone.tokenize([f"a photo of a {name}." for name in names])
    text = [plain_text_feature(backbone.model, row, prompts[0], later) for row in ids]
    tower, rows = PlainImages(backbone.model), []
    for image in images:
        tokens = torch.cat([tower.tokens(image), visual[0]])
        at = slice(len(tokens) - len(visual[0]), len(tokens))
        v = tower.encode(tokens, at, dict(enumerate(visual[1:], 1)), lambda x: x + 7)
        rows.append(torch.stack([backbone.logit_scale * F.normalize(v, dim=-1) @ t for t in text]))
    return torch.stack(rows)


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    depth=st.integers(1, 3),
    n_ctx=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    b=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_logits_and_gradients_equal_the_plain_ones(
    make_backbone: Callable[[str], Any],
    *,
    kind: str,
    sizes: tuple[int, int],
    depth: int,
    n_ctx: int,
    lengths: list[int],
    b: int,
    seed: int,
) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind, *sizes))
    rng = np.random.default_rng(seed)
    names = tuple(" ".join([*(f"w{rng.integers(20)}" for _ in range(n - 1)), f"v{i}"]) for i, n in enumerate(lengths))
    model = maple(backbone, names, seed, n_ctx=n_ctx, depth=min(depth, *sizes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.from_numpy(rng.normal(size=tuple(p.shape))).float())
    images, labels = pixels(b, backbone.model, seed), torch.from_numpy(rng.integers(0, len(names), b))
    batch = Batch(model.prepare(images), labels)
    logits = model(batch)
    model.loss(batch, logits)[0].backward()
    found = gradients(model)

    model.zero_grad()
    expected = plain_logits(model, backbone, names, images)
    F.cross_entropy(expected, labels).backward()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert_gradients_equal(found, gradients(model))


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_it_starts_from_the_templates_words(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = replace(make_backbone(kind), model=random_model(kind))
    names = ("glioma", "large cell carcinoma")
    model = maple(backbone, names, depth=1)
    ids = backbone.tokenize([f"a photo of a {name}." for name in names])
    expected = backbone.model.encode_text(ids)
    torch.testing.assert_close(model.text_features(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.ctx, backbone.text.embed(ids)[0, 1:3])


def test_the_deeper_couplings_start_as_copies_of_one_layer_and_are_trained_apart(
    make_backbone: Callable[[str], Any],
) -> None:
    backbone = replace(make_backbone("clip"), model=random_model("clip"))
    first, *deeper = maple(backbone, ("a", "b")).couplings
    assert len(deeper) > 1
    for one in deeper[1:]:
        assert torch.equal(one.weight, deeper[0].weight)
        assert one.weight is not deeper[0].weight
    assert not torch.equal(first.weight, deeper[0].weight)


def test_depth_is_bounded_by_the_towers_and_null_takes_what_both_have(make_backbone: Callable[[str], Any]) -> None:
    backbone = replace(make_backbone("clip"), model=random_model("clip", 3, 2))
    assert len(maple(backbone, ("a", "b")).couplings) == 2
    deep = replace(backbone, model=random_model("clip", 10, 11))
    assert len(maple(deep, ("a", "b")).couplings) == 9
    assert len(maple(deep, ("a", "b"), depth=10).couplings) == 10
    with pytest.raises(BadParams, match=r"methods\.maple .*: depth: must be at most 2, .* tower, found 3"):
        maple(backbone, ("a", "b"), depth=3)


@pytest.mark.parametrize(
    ("knobs", "names", "message"),
    [
        ({"n_ctx": 5}, ("a", "b"), r"methods\.maple\.n_ctx: must be at most 4, .* found 5"),
        ({}, ("a", " ".join("abcdefghijklmnopqrstuvwxyz")), r"class 'a b c .* does not fit the 24 tokens"),
    ],
)
def test_a_sentence_that_cannot_be_built_is_explained(
    make_backbone: Callable[[str], Any], knobs: dict[str, Any], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadParams, match=message):
        maple(make_backbone("clip"), names, **knobs)
