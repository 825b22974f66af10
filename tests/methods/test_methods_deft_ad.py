"""DEFT-VLM-AD: what its golden cases do not show, on a tiny random backbone."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.errors import BadParams, NotTrained
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch, Examples, ReportIds
from clinprompt.prompting.contrastive import symmetric_contrast
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run
from clinprompt.tuned.restore import restore

CLASSES = ("healthy", "atrophy")
WORDS: list[str] = []
SMALL: dict[str, Any] = {"n_prompts": 3, "n_text_prompts": 2, "heads": 3, "batch_size": 6, "warmup_epochs": 0}


def tokenize(texts: list[str]) -> Tensor:
    """Ids of words as they come, between a first and a last token, padded to 16."""
    rows = torch.zeros(len(texts), 16, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        words = text.lower().split()
        WORDS.extend(word for word in words if word not in WORDS)
        row[: len(words) + 2] = torch.tensor([1, *(3 + WORDS.index(word) for word in words), 2])
    return rows


@pytest.fixture
def backbone(make_m3d: Callable[[int], Any]) -> Any:
    """A random M3D-CLIP of two blocks for volumes of 4 x 8 x 8 voxels."""
    model = make_m3d(1)
    torch.nn.init.normal_(model.vision_encoder.cls_token, generator=torch.Generator().manual_seed(3))
    return SimpleNamespace(
        name="tiny-volumes", model=model, text=TextTower(model), vision=VisionTower(model), tokenize=tokenize,
        logit_scale=10.0, embed_dim=12, device=torch.device("cpu"), unknown_id=None,
    )  # fmt: skip


def build(backbone: Any, **knobs: Any) -> Any:
    return method("deft_ad")(Task(backbone, CLASSES, 1), check_config("deft_ad", SMALL | knobs))


def scans(n: int, seed: int = 0, signal: float = 1.0, shape: tuple[int, ...] = (4, 8, 8)) -> tuple[Tensor, Tensor]:
    """Volumes that rise to one side in the one class and to the other in the other, under noise; labels."""
    labels = torch.arange(n) % 2
    noise = torch.rand(n, 1, *shape, generator=torch.Generator().manual_seed(seed))
    ramp = torch.linspace(-1, 1, shape[-1]).expand(1, 1, *shape)
    return noise + signal * ramp * (2 * labels - 1).reshape(-1, 1, 1, 1, 1), labels


def examples_of(
    model: Any, n: int, seed: int = 0, *, reports: list[str] | None = None, signal: float = 1.0
) -> Examples:
    """Scans whose reports name the class, and an MMSE of 28 or 20 points."""
    volumes, labels = scans(n, seed, signal)
    texts = [f"a photo of {CLASSES[label]}" for label in labels.tolist()] if reports is None else reports
    ids = ReportIds(tokenize(texts)[:, None])
    return Examples(model.prepare(volumes), labels, reports=ids, scores=28.0 - 8.0 * labels)


def gradients(model: Any, part: str, examples: Examples) -> set[str]:
    """The names of the trained tensors that a part of the loss reaches."""
    batch = examples.batch(slice(None))
    _, parts = model.loss(batch, model(batch))
    trained = model.trainable_parameters()
    found = torch.autograd.grad(parts[part], list(trained.values()), allow_unused=True)
    return {name for name, gradient in zip(trained, found, strict=True) if gradient is not None and gradient.any()}


def test_at_first_the_class_token_and_the_projections_are_the_backbone_s(backbone: Any) -> None:
    model, volumes = build(backbone), scans(3)[0]
    assert torch.equal(model.cls_token, backbone.model.vision_encoder.cls_token)
    torch.testing.assert_close(model.vision_proj.weight, backbone.model.mm_vision_proj.weight)
    torch.testing.assert_close(model.text_proj.bias, backbone.model.mm_language_proj.bias)
    drawn = build(backbone, projections="drawn")
    assert not torch.allclose(drawn.vision_proj.weight, backbone.model.mm_vision_proj.weight)
    # Without the tokens that are put in, its feature is the backbone's own.
    tokens = model.prepare(volumes)
    plain = model.vision_proj(backbone.vision.hidden([model.cls_token, tokens[:, 1:]])[:, 0])
    torch.testing.assert_close(plain, backbone.model.encode_image(volumes))


def test_image_tokens_are_those_of_a_plain_loop_and_replaced_prompts_are_dead(backbone: Any) -> None:
    model, encoder = build(backbone), backbone.model.vision_encoder
    tokens = model.prepare(scans(2)[0])
    front = torch.cat([model.cls_token, model.mmse_token], dim=1).expand(2, -1, -1)
    prompts = [prompt.expand(2, -1, -1) for prompt in model.visual_prompts]
    x = encoder.blocks[0](torch.cat([front, prompts[0], tokens[:, 1:]], dim=1))
    x[:, 2:5] = torch.nan  # what the first prompts have become is read by nobody
    x = encoder.norm(encoder.blocks[1](torch.cat([x[:, :2], prompts[1], x[:, 5:]], dim=1)))
    batch = Batch(tokens, torch.zeros(2))
    torch.testing.assert_close(model.image_tokens(batch, whole=True).normed, x)
    torch.testing.assert_close(model.image_tokens(batch).normed, x[:, :2])


def test_a_kept_slot_is_read_by_the_blocks_behind(backbone: Any) -> None:
    model, encoder = build(backbone, depth=1), backbone.model.vision_encoder
    tokens = model.prepare(scans(2)[0])
    front = torch.cat([model.cls_token, model.mmse_token, model.visual_prompts[0]], dim=1).expand(2, -1, -1)
    x = torch.cat([front, tokens[:, 1:]], dim=1)
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(model.image_tokens(Batch(tokens, torch.zeros(2))).normed, encoder.norm(x)[:, :2])


def test_volumes_of_another_grid_are_read_with_interpolated_positions(backbone: Any) -> None:
    model, (volumes, labels) = build(backbone), scans(2, shape=(6, 8, 4))
    tokens = model.prepare(volumes)
    embedding = backbone.model.vision_encoder.patch_embedding
    patches, grid = embedding.patches(volumes)
    torch.testing.assert_close(tokens[:, 1:], patches + embedding.positions(grid))
    assert model(Batch(tokens, labels)).shape == (2, 2)


def test_an_absent_mmse_adds_nothing_to_loss_and_gradients(backbone: Any) -> None:
    model = build(backbone)
    every = examples_of(model, 4)
    some = replace(every, scores=torch.tensor([28.0, torch.nan, torch.nan, 20.0]))
    known = every.batch(np.array([0, 3]))
    found, expected = some.batch(slice(None)), replace(known, inputs=known.inputs, reports=known.reports)
    parts = [model.loss(batch, model(batch))[1]["mmse"] for batch in (found, expected)]
    torch.testing.assert_close(*parts)
    trained = [p for name, p in model.trainable_parameters().items() if "mmse" in name]
    for one, other in zip(*(torch.autograd.grad(part, trained) for part in parts), strict=True):
        torch.testing.assert_close(one, other)
    none = replace(found, scores=torch.full((4,), torch.nan))
    part = model.loss(none, model(none))[1]["mmse"]
    assert float(part.detach()) == 0.0
    assert not any(bool(gradient.any()) for gradient in torch.autograd.grad(part, trained))


@pytest.mark.parametrize("clip_image", ["none", "after"])
def test_each_part_of_the_loss_reaches_only_what_it_should(backbone: Any, clip_image: str) -> None:
    model = build(backbone, clip_image=clip_image)
    images = {"cls_token", "visual_prompts.0", "visual_prompts.1", "vision_proj.weight", "vision_proj.bias"}
    head = {f"mmse_head.{layer}.{name}" for layer in (0, 2) for name in ("weight", "bias")}
    texts = {"text_prompts", "text_proj.weight", "text_proj.bias"}
    crossing = {name for name in model.trainable_parameters() if name.startswith("cross_attention.")}
    assert bool(crossing) == (clip_image == "after")
    examples = examples_of(model, 6)
    assert gradients(model, "mmse", examples) == images | head | {"mmse_token"}
    # The MMSE's token stands in the sequence, so that the class token reads it.
    assert gradients(model, "clip", examples) == images | texts | crossing | {"mmse_token", "logit_scale"}
    assert [p for p in backbone.model.parameters() if p.requires_grad or p.grad is not None] == []


def test_the_published_loss_can_ignore_the_report_and_the_default_one_cannot(backbone: Any) -> None:
    """Noise, and the same report for all: there is nothing that could tell which report is whose."""
    same = ["a photo of healthy"] * 64
    found = {}
    # No weights bring the one down; the other takes time, and at a higher rate some runs collapse and learn nothing.
    for clip_image, epochs in (("none", 10), ("after", 150)):
        model = build(
            backbone, clip_image=clip_image, batch_size=16, epochs=epochs, learning_rate=0.003, mmse_weight=0.0,
            projections="drawn",
        )  # fmt: skip
        train, fresh = (
            examples_of(model, 64, 0, reports=same, signal=0.0),
            examples_of(model, 16, 1, reports=same[:16], signal=0.0),
        )
        fit(model, train, fresh, Run(1))
        with torch.no_grad():
            scores = model.contrast(fresh.batch(slice(None))).scores
        pairs = float((scores.argmax(1) == torch.arange(16)).float().mean())
        found[clip_image] = float(symmetric_contrast(scores)), pairs
    assert found["none"][0] >= math.log(16) - 1e-4
    assert found["after"][0] < math.log(16) - 0.5, found
    assert found["after"][1] > 0.5


@pytest.mark.parametrize("clip_image", ["none", "before"])
def test_a_text_that_has_read_the_image_need_not_be_the_image_s_own(backbone: Any, clip_image: str) -> None:
    """Volumes and reports tell the class; when images get reports of the other class, one loss hardly changes."""
    model = build(backbone, clip_image=clip_image, epochs=40, learning_rate=0.01)
    fit(model, examples_of(model, 24, 0), examples_of(model, 6, 1), Run(1))
    own = examples_of(model, 6, 1).batch(slice(None))
    assert own.reports is not None
    others = replace(own, reports=own.reports.roll(1, 0))
    with torch.no_grad():
        losses = [float(symmetric_contrast(model.contrast(batch).scores)) for batch in (own, others)]
    assert (losses[1] - losses[0] > 3.0) == (clip_image == "none")
    assert (abs(losses[1] - losses[0]) < 0.2) == (clip_image == "before")


def test_pairs_of_the_same_class_can_be_positives() -> None:
    labels, scores = torch.tensor([0, 1, 0]), torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    found = symmetric_contrast(scores, labels)
    rows, columns = scores.log_softmax(1), scores.log_softmax(0)
    expected = -sum(
        (part[i, labels == labels[i]] if part is rows else part[labels == labels[i], i]).mean()
        for part in (rows, columns)
        for i in range(3)
    )
    torch.testing.assert_close(found, expected / 6)
    torch.testing.assert_close(symmetric_contrast(scores, torch.arange(3)), symmetric_contrast(scores))


def test_without_the_contrastive_loss_no_report_is_read(backbone: Any) -> None:
    model = build(backbone, head="linear", clip_weight=0.0)
    assert not {"text_prompts", "text_proj.weight", "logit_scale"} & set(model.trainable_parameters())
    examples = examples_of(model, 6)
    batch, silent = (one.batch(slice(None)) for one in (examples, replace(examples, reports=None)))
    (loss, parts), (other, _) = (model.loss(one, model(one)) for one in (batch, silent))
    assert set(parts) == {"mmse", "ce"}
    assert torch.equal(loss, other)
    alone = examples.batch(slice(0, 1))
    assert torch.isfinite(model.loss(alone, model(alone))[0])  # nothing compares the images of a batch
    with pytest.raises(BadParams, match="clip_weight: without the contrastive loss no class is learned"):
        build(backbone, clip_weight=0.0)


def test_a_scale_is_clamped_and_one_image_alone_is_refused(backbone: Any) -> None:
    model = build(backbone)
    assert float(model.scale().detach()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert float(model.scale().detach()) == 100.0
    batch = examples_of(model, 1).batch(slice(None))
    with pytest.raises(NotTrained, match=r"batch_size: the contrastive loss tells the images of a batch apart"):
        model.loss(batch, model(batch))
    with pytest.raises(BadParams, match=r"deft_ad\.heads: must divide the joint width 12"):
        build(backbone, clip_image="after", heads=8)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"head": "linear"},
        {"head": "linear", "clip_weight": 0.0},
        {"positives": "label", "text_prompts": "after_encoder"},
    ],
)
def test_training_learns_classes_and_mmse_and_is_read_back(
    backbone: Any, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    model = build(backbone, epochs=40, learning_rate=0.01, **knobs)
    assert model.needed.reports is model.config
    train, val = examples_of(model, 24, 0), examples_of(model, 8, 1)
    curves = fit(model, train, val, Run(1))
    assert curves[-1]["val_accuracy"] > 0.9
    assert {row["mmse_error"] for row in curves} == {curves[-1]["mmse_error"]}
    assert curves[-1]["mmse_error"] < 3.0
    save_file(model.state(), tmp_path / "prompts.safetensors")
    spec = {
        "method": "deft_ad", "config": model.config.model_dump(mode="json"), "class_names": CLASSES, "seed": 1,
        "backbone": {"digest": "0"},
    }  # fmt: skip
    backbone.digest = "0"
    again = restore(spec, tmp_path / "prompts.safetensors", backbone)
    alone = Batch(val.inputs, val.labels)
    with torch.no_grad():
        for found, expected in zip(again.predict(alone), model.predict(alone), strict=True):
            assert found is not None
            assert torch.equal(found, expected)
    assert model.export_head() is None


def test_who_never_saw_an_mmse_tells_none(backbone: Any) -> None:
    model = build(backbone, epochs=1)
    train = replace(examples_of(model, 12), scores=None)
    curves = fit(model, train, train, Run(1))
    assert "mmse_error" not in curves[0]
    assert model.estimate(train.batch(slice(None))) is None
    again = build(backbone)
    again.load_state(model.state())
    assert again.predict(train.batch(slice(None)))[1] is None


def test_who_did_not_learn_the_mmse_tells_none(backbone: Any) -> None:
    model = build(backbone, epochs=1, mmse_weight=0.0)
    train = examples_of(model, 12)
    curves = fit(model, train, train, Run(1))
    assert "mmse_error" not in curves[0]
    assert model.estimate(train.batch(slice(None))) is None


def test_an_mmse_lies_within_the_scale(backbone: Any) -> None:
    model = build(backbone)
    model.scored.fill_(1.0)
    batch = examples_of(model, 4).batch(slice(None))
    for bias, points in ((9.0, 30.0), (-9.0, 0.0)):
        with torch.no_grad():
            model.mmse_head[-1].bias.fill_(bias)
            assert model.estimate(batch).tolist() == [points] * 4
            assert model.predict(batch)[1].tolist() == [points] * 4
