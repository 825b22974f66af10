"""M3D-CLIP's towers: against the original code's numbers, against a convolution, and opened up for prompts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_volumes import BACKBONE, backbone_of, cases_of, record_of
from safetensors.torch import load_file

from clinprompt.backbones.m3d import M3DClip
from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower


class Case:
    """A golden case: its record and tensors, and the model with its weights."""

    def __init__(self, folder: Path) -> None:
        self.record, self.model = record_of(folder), backbone_of(folder)
        self.inputs, self.expected = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "expected"))

    def near(self, found: torch.Tensor, name: str, **tolerance: float) -> None:
        torch.testing.assert_close(found, self.expected[name], **({"rtol": 0.0, "atol": 5e-6} | tolerance))


@pytest.fixture(params=cases_of())
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture
def tiny(make_m3d: Callable[[int], Any]) -> M3DClip:
    """A model with random weights, the class token's too."""
    model: M3DClip = make_m3d(2)
    torch.nn.init.normal_(model.vision_encoder.cls_token, generator=torch.Generator().manual_seed(3))
    return model


def volumes(*shape: int) -> torch.Tensor:
    return torch.rand(2, 2, *(shape or (4, 8, 8)), generator=torch.Generator().manual_seed(1))


def unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features, dim=-1)


def test_features_are_the_original_code_s(case: Case) -> None:
    image, text = VisionTower(case.model), TextTower(case.model)
    case.near(unit(case.model.encode_image(case.inputs["images"])), "plain_image_features")
    case.near(unit(image.encode([image.embed(case.inputs["images"])])), "plain_image_features")
    case.near(unit(case.model.encode_text(case.inputs["token_ids"])), "plain_text_features")
    case.near(unit(text.encode_ids(case.inputs["token_ids"])), "plain_text_features")


@pytest.mark.parametrize("case", cases_of(BACKBONE), indirect=True)
def test_tokens_logits_loss_and_gradients_are_the_original_code_s(case: Case) -> None:
    model, inputs = case.model, case.inputs
    tokens = model.vision_encoder(inputs["images"])
    case.near(tokens, "vision_tokens", atol=2e-5 * float(case.expected["vision_tokens"].abs().max()))
    image, text = unit(model.encode_image(inputs["images"])), unit(model.encode_text(inputs["token_ids"]))
    classes = unit(model.encode_text(inputs["class_token_ids"]))
    case.near(classes, "class_text_features")
    case.near(model.logit_scale * image @ classes.T, "class_logits", atol=1e-5)
    scores = model.logit_scale * image @ text.T
    diagonal = torch.arange(len(scores))
    loss = (F.cross_entropy(scores, diagonal) + F.cross_entropy(scores.T, diagonal)) / 2
    case.near(loss, "loss_total", atol=1e-5, rtol=2e-6)
    loss.backward()
    compared = 0
    for name, parameter in model.named_parameters():
        if f"grad.{name}" in case.expected:
            expected = case.expected[f"grad.{name}"]
            assert parameter.grad is not None
            assert float((parameter.grad - expected).abs().max()) <= 1e-4 * float(expected.abs().max()) + 1e-7, name
            compared += 1
    assert compared == sum(name.startswith("grad.") for name in case.expected)


@pytest.mark.parametrize("case", cases_of(BACKBONE), indirect=True)
def test_positions_are_interpolated_to_another_grid(case: Case) -> None:
    found = case.inputs["resized_images"]
    grid = tuple(side // step for side, step in zip(found.shape[2:], case.record["patch_size"], strict=True))
    positions: Any = case.model.vision_encoder.patch_embedding.positions(grid)
    case.near(positions, "resized_positions", atol=2e-5 * float(case.expected["resized_positions"].abs().max()))
    case.near(unit(case.model.encode_image(found)), "resized_image_features")


def test_a_patch_is_embedded_as_by_a_convolution(tiny: M3DClip) -> None:
    model = tiny
    linear: Any = model.vision_encoder.patch_embedding.patch_embeddings[1]
    sizes = model.vision_encoder.sizes
    kernel = linear.weight.reshape(sizes.width, *sizes.patch, sizes.channels).permute(0, 4, 1, 2, 3)
    expected = F.conv3d(volumes(), kernel, linear.bias, stride=sizes.patch).flatten(2).transpose(1, 2)
    found, grid = model.vision_encoder.patch_embedding.patches(volumes())
    assert grid == sizes.grid == (2, 2, 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(4, 8, 8), (6, 8, 4)])
def test_the_opened_tower_gives_the_model_s_features(tiny: M3DClip, shape: tuple[int, int, int]) -> None:
    model = tiny
    tower = VisionTower(model)
    assert (tower.grid, tower.patch, tower.width) == ((2, 2, 2), (2, 4, 4), 12)
    assert (tower.patches, tower.patch_values) == (8, 64)
    torch.testing.assert_close(tower.encode([tower.embed(volumes(*shape))]), model.encode_image(volumes(*shape)))


def test_deep_prompts_among_the_patches_are_those_of_a_plain_loop(tiny: M3DClip) -> None:
    model = tiny
    tower = VisionTower(model)
    prompts = torch.randn(2, 3, model.vision_encoder.sizes.width, generator=torch.Generator().manual_seed(2))
    tokens = tower.embed(volumes())
    segments = [tokens[:, :1], prompts[0].expand(2, -1, -1), tokens[:, 1:]]
    found = tower.encode(segments, writes={1: {1: prompts[1]}})
    x = torch.cat(segments, dim=1)
    x = model.vision_encoder.blocks[0](x)
    x = torch.cat([x[:, :1], prompts[1].expand(2, -1, -1), x[:, 4:]], dim=1)
    x = model.vision_encoder.norm(model.vision_encoder.blocks[1](x))
    torch.testing.assert_close(found, model.mm_vision_proj(x[:, 0]))


def test_the_state_dict_has_the_published_names(tiny: M3DClip) -> None:
    names = set(tiny.state_dict())
    assert {
        "vision_encoder.patch_embedding.patch_embeddings.1.weight",
        "vision_encoder.patch_embedding.position_embeddings",
        "vision_encoder.blocks.0.attn.qkv.weight",
        "vision_encoder.blocks.1.mlp.linear2.bias",
        "vision_encoder.cls_token",
        "language_encoder.encoder.layer.0.attention.self.query.weight",
        "mm_language_proj.weight",
        "logit_scale",
    } <= names
    assert "vision_encoder.blocks.0.attn.qkv.bias" not in names
