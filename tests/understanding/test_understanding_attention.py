"""The maps against a last block that is run head by head, and where methods put their prompts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_towers import PlainImages, pixels
from small_methods import KNOBS, NAMES
from torch import Tensor

from clinprompt.backbones.vision import VisionTower
from clinprompt.errors import BadParams
from clinprompt.prompting.base import Head
from clinprompt.understanding.attention import log_odds, relevance
from clinprompt.understanding.models import with_head, with_method, zero_shot

LABELS = torch.tensor([0, 2, 1, 1])


def plain_map(
    tower: PlainImages, tokens: Tensor, patches: slice, later: dict[int, Tensor], score: Callable[[Tensor], Tensor]
) -> Tensor:
    """One image's map [patches] from its whole sequence [n, w], whose tokens beside the class token and the patches are
    replaced in front of some blocks; `score` is of the image's feature [e]."""
    x, last = tower.start(tokens), len(tower.blocks) - 1
    for layer in range(last + 1):
        if layer in later:
            x = torch.cat([x[: patches.start - len(later[layer])], later[layer], x[patches.start :]])
        if layer < last:
            x = tower.block(layer, x)
    block = tower.blocks[last]
    if tower.timm:
        norm, norm2, out, heads = block.norm1, block.norm2, block.attn.proj, block.attn.num_heads
        weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    else:
        norm, norm2, out, heads = block.ln_1, block.ln_2, block.attn.out_proj, block.attn.num_heads
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    q, k, v = F.linear(norm(x), weight, bias).chunk(3, dim=-1)
    parts = [slice(h * q.shape[1] // heads, (h + 1) * q.shape[1] // heads) for h in range(heads)]
    attention = [(k[:, part] @ q[0, part] / (part.stop - part.start) ** 0.5).softmax(0) for part in parts]
    o = torch.cat([a @ v[:, part] for a, part in zip(attention, parts, strict=True)]).requires_grad_()
    y = x[0] + out(o)
    (g,) = torch.autograd.grad(score(tower.finish((y + block.mlp(norm2(y)))[None])), o)
    found = [
        sum(float(a[i] * (g[part] @ v[i, part])) for a, part in zip(attention, parts, strict=True))
        for i in range(patches.start, patches.stop)
    ]
    return torch.tensor(found).clamp(min=0)


def test_a_head_on_frozen_features_equals_the_plain_path(backbone: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 12, generator=generator), torch.randn(3, generator=generator)
    images, tower = pixels(4, backbone.model), PlainImages(backbone.model)
    maps, p = relevance(with_head(backbone, Head(weight, 7.0, bias)), images, LABELS)
    for image, label, found, probability in zip(images, LABELS, maps, p, strict=True):

        def score(feature: Tensor, c: int = int(label)) -> Tensor:
            z = 7 * weight @ F.normalize(feature, dim=0) + bias
            return torch.logit(z.softmax(0)[c])

        expected = plain_map(tower, tower.tokens(image), slice(1, 5), {}, score)
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-3, atol=1e-5)
        feature = backbone.model.encode_image(image[None])[0]
        assert float(probability) == pytest.approx(float(score(feature).sigmoid()), abs=1e-5)
    assert float(maps.max()) > 1e-2


def test_prompts_among_the_patches_are_left_out(backbone: Any, build: Callable[..., Any]) -> None:
    method, images, tower = build("vpt"), pixels(4, backbone.model), PlainImages(backbone.model)
    maps, _ = relevance(with_method(backbone, method), images, LABELS)
    for image, label, found in zip(images, LABELS, maps, strict=True):
        tokens = tower.tokens(image)
        tokens = torch.cat([tokens[:1], method.prompts[0].detach(), tokens[1:]])
        later = {layer: method.prompts[layer].detach() for layer in range(1, len(method.prompts))}

        def score(feature: Tensor, c: int = int(label)) -> Tensor:
            return torch.logit((20 * method.head.text @ F.normalize(feature, dim=0)).softmax(0)[c])

        expected = plain_map(tower, tokens, slice(4, 8), later, score)
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", sorted(KNOBS))
def test_each_way_to_use_the_tower_gives_a_map(backbone: Any, build: Callable[..., Any], name: str) -> None:
    images = pixels(4, backbone.model)
    model = with_method(backbone, build(name, shake=0.1))
    maps, p = relevance(model, images, LABELS)
    assert maps.shape == (4, 2, 2)
    assert torch.isfinite(maps).all()
    assert (maps >= 0).all()
    assert float(maps.max()) > 0
    with torch.no_grad():
        expected = model.logits(model.prepare(images)).softmax(-1)[torch.arange(4), LABELS]
    torch.testing.assert_close(p, expected)
    torch.testing.assert_close(relevance(model, images, LABELS)[0], maps, rtol=0, atol=0)


def test_patches_that_the_model_does_not_see_say_nothing(backbone: Any, build: Callable[..., Any]) -> None:
    maps, _ = relevance(with_method(backbone, build("biomed_dpt")), pixels(4, backbone.model), LABELS)
    assert (maps.flatten(1)[:, :2] == 0).all()
    assert (maps.flatten(1)[:, 2:] > 0).any()


def test_what_changes_nothing_yet_has_the_frozen_model_s_map(backbone: Any, build: Callable[..., Any]) -> None:
    images = pixels(4, backbone.model)
    expected, p = relevance(zero_shot(backbone, NAMES, "a photo of a {}."), images, LABELS)
    lora = build("lora", shake=0.0)
    tuned = build("full_finetuning", shake=0.0)
    found, q = relevance(with_method(backbone, lora), images, LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(q, p)
    # A copy of the tower under any head: the head alone on the frozen features.
    head = Head(tuned.head.weight.detach(), 1.0, tuned.head.bias.detach())
    features = backbone.model.encode_image(images)
    whole = with_method(backbone, tuned)
    torch.testing.assert_close(whole.logits(whole.prepare(images)), features @ head.weight.T + head.bias)


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    expected = torch.logit(logits.softmax(-1)[torch.arange(5), labels])
    torch.testing.assert_close(log_odds(logits, labels), expected)


def test_a_tower_that_can_t_be_opened_is_named(backbone: Any) -> None:
    class Convolutions:
        visual = torch.nn.Conv2d(3, 4, 2)

    model = zero_shot(backbone, NAMES, "a photo of a {}.")
    broken = replace(model, tower=lambda: VisionTower(Convolutions))
    with pytest.raises(BadParams, match="image tower Conv2d"):
        relevance(broken, pixels(1, backbone.model), LABELS[:1])
