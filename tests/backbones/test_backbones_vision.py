"""Image towers with layer scale and patches of 14 pixels, opened up, give what open_clip gives."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from clinprompt.backbones.vision import VisionTower

PATCH, WIDTH, LAYERS = 14, 16, 3
TEXT = {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1}


def own(_folder: Path) -> dict[str, Any]:
    """open_clip's, as DINOv2's is: layer scale, no norm in front of the blocks, another epsilon."""
    return {
        "image_size": 3 * PATCH, "layers": LAYERS, "width": WIDTH, "head_width": 8, "patch_size": PATCH,
        "ls_init_value": 0.5, "no_ln_pre": True, "norm_kwargs": {"eps": 1e-6},
    }  # fmt: skip


def timms(folder: Path) -> dict[str, Any]:
    sizes = {"img_size": 3 * PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": 2, "init_values": 0.5}
    config = {"architecture": "vit_small_patch14_dinov2", "num_classes": 0, "model_args": sizes, "pretrained_cfg": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return {"timm_model_name": f"local-dir:{folder}", "timm_pool": "token", "timm_proj": "linear", "image_size": 42}


@pytest.fixture(params=[own, timms])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = open_clip.CLIP(embed_dim=12, vision_cfg=request.param(tmp_path), text_cfg=TEXT)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return model.eval().requires_grad_(False)


def images(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_without_prompts_it_is_the_model_itself(model: Any) -> None:
    tower = VisionTower(model)
    pixels = images(3 * PATCH)
    torch.testing.assert_close(tower.encode([tower.embed(pixels)]), model.encode_image(pixels), atol=1e-5, rtol=1e-5)
    assert (tower.grid, tower.patch, tower.width, len(tower.blocks)) == ((3, 3), (PATCH, PATCH), WIDTH, LAYERS)
    assert tower.embed(images(4 * PATCH)).shape == (2, 17, WIDTH)


def test_prompts_before_each_block_are_those_of_a_plain_loop(model: Any) -> None:
    tower, visual = VisionTower(model), model.visual
    prompts = torch.randn(LAYERS, 2, WIDTH, generator=torch.Generator().manual_seed(2))
    tokens = tower.embed(images(3 * PATCH))
    writes = {layer: {1: prompts[layer]} for layer in range(1, LAYERS)}
    found = tower.encode([tokens, prompts[:1]], writes)

    timm = hasattr(visual, "trunk")
    x, blocks = tokens, visual.trunk.blocks if timm else visual.transformer.resblocks
    for block, prompt in zip(blocks, prompts, strict=True):
        x = block(torch.cat([x[:, : tokens.shape[1]], prompt.expand(2, -1, -1)], dim=1))
    expected = visual.head(visual.trunk.norm(x)[:, 0]) if timm else visual.ln_post(x)[:, 0] @ visual.proj
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
