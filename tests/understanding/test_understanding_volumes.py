"""Maps over volumes, and the planes in which they are shown."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clinprompt.backbones.vision import VisionTower
from clinprompt.data.codecs.base import three_planes
from clinprompt.data.volumes import VolumePreprocessing
from clinprompt.prompting.base import Head
from clinprompt.understanding.attention import relevance
from clinprompt.understanding.models import with_head
from clinprompt.understanding.shown import as_seen, shown


def test_a_map_of_a_volume_lies_on_its_grid_and_is_the_gradient_s_product(make_m3d: Callable[[int], Any]) -> None:
    model = make_m3d(1)
    torch.nn.init.normal_(model.vision_encoder.cls_token, generator=torch.Generator().manual_seed(3))
    tower: Any = SimpleNamespace(vision=VisionTower(model))
    weight = torch.randn(2, model.mm_vision_proj.out_features, generator=torch.Generator().manual_seed(0))
    volume = torch.rand(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    maps, p = relevance(with_head(tower, Head(weight, 5.0)), volume, torch.tensor([1]))
    assert maps.shape == (1, *tower.vision.grid)

    encoder = model.vision_encoder
    x = encoder.embed(volume)
    for block in encoder.blocks[:-1]:
        x = block(x)
    last = encoder.blocks[-1]
    q, k, v = last.attn.qkv(last.norm1(x))[0].chunk(3, dim=-1)
    parts = torch.arange(q.shape[1]).chunk(last.attn.heads)
    attention = [(k[:, part] @ q[0, part] / len(part) ** 0.5).softmax(0) for part in parts]
    o = torch.cat([a @ v[:, part] for a, part in zip(attention, parts, strict=True)]).detach().requires_grad_()
    y = x[0, 0] + last.attn.out_proj(o)
    feature: Tensor = model.mm_vision_proj(encoder.norm(y + last.mlp(last.norm2(y))))
    odds = torch.logit((5 * weight @ F.normalize(feature, dim=0)).softmax(0)[1])
    (g,) = torch.autograd.grad(odds, o)
    expected = sum(a[1:] * (v[1:, part] @ g[part]) for a, part in zip(attention, parts, strict=True))
    torch.testing.assert_close(maps.flatten(), torch.as_tensor(expected).clamp(min=0), rtol=1e-3, atol=1e-6)
    assert float(p) == pytest.approx(float(odds.sigmoid().detach()), abs=1e-5)


def test_the_planes_go_through_the_brightest_place_of_the_second_map() -> None:
    volume = np.zeros((8, 6, 10))
    volume[7, 0, 6] = 1  # where the map below is brightest between its patches
    maps = (np.zeros((4, 3, 5)), np.zeros((4, 3, 5)))
    maps[1][3, 0, 3] = 2
    picture, (before, after) = shown(volume, maps)
    assert picture.shape == (8, 10 + 10 + 6, 3)
    assert before.shape == after.shape == picture.shape[:2]
    assert picture[..., 0].sum() == 3  # the voxel is seen in each of the three
    assert after.max() == pytest.approx(1.5)
    assert before.max() == 0


def test_a_volume_is_shown_in_0_to_1_whatever_its_scale() -> None:
    volumes = np.random.default_rng(0).normal(3, 2, (2, 1, 4, 5, 6))
    seen = as_seen(volumes, VolumePreprocessing((4, 5, 6), "z_score"))
    assert seen.shape == (2, 4, 5, 6)
    assert (seen.min(), seen.max()) == (0, 1)


def test_thick_slices_are_as_tall_as_they_are_in_the_body() -> None:
    planes = three_planes(np.arange(3 * 20 * 10).reshape(3, 20, 10), spacing=(8.0, 1.0, 1.0))
    assert planes.shape == (24, 10 + 10 + 20)
    coronal = planes[:, 10:20]
    assert (coronal[:8] == coronal[0]).all()
    assert coronal[0, 0] > coronal[-1, 0]  # the head is up
