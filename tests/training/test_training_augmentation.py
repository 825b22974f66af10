"""Augmented pixels: what is drawn, that it can be drawn again, and what a method sees of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.errors import Interrupted
from clinprompt.prompting.averaging import GaussianAverage
from clinprompt.prompting.batches import Batch, Examples, epoch_rows
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.training.augmentation import CropFlip, crop_flip
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.loop import Run, descend

DESCENT = OptimiserSettings(
    learning_rate=0.1, momentum=0.9, weight_decay=0.0, warmup_epochs=0, warmup_learning_rate=0.1, batch_size=4, epochs=4
)


def images(n: int = 10) -> Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def labels(n: int = 10) -> Tensor:
    return torch.arange(n) % 2


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone() -> None:
    examples = CropFlip(images(), labels(), nn.Identity())
    before = torch.random.get_rng_state()
    first = examples.at(1, 2).batch(np.array([4, 7, 1]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.labels, torch.tensor([0, 1, 1]))
    torch.manual_seed(99)
    again = examples.at(1, 2).batch(np.array([7, 4]))
    assert torch.equal(again.inputs, first.inputs[[1, 0]])
    assert torch.equal(examples.at(1, 2).batch(slice(4, 5)).inputs[0], first.inputs[0])
    for seed, epoch in ((1, 3), (2, 2)):
        assert not torch.equal(examples.at(seed, epoch).batch(np.array([4])).inputs[0], first.inputs[0])


def test_crops_have_the_papers_sizes_and_half_are_mirrored() -> None:
    """Read off an image whose channels are its coordinates."""
    size = 64
    line = torch.linspace(0, 1, size)
    ramp = torch.stack([line[:, None].expand(size, size), line[None].expand(size, size), torch.zeros(size, size)])
    areas, ratios, mirrored = [], [], 0
    for number in range(300):
        found = crop_flip(ramp, [0, 0, number])
        assert found.shape == ramp.shape
        middle = found[:, 8:-8, 8:-8]  # where resizing is linear, away from the edges
        stretch = (size - 1) / (size - 17)
        height = float(middle[0, -1, 0] - middle[0, 0, 0]) * stretch
        width = float(middle[1, 0, -1] - middle[1, 0, 0]) * stretch
        mirrored += width < 0
        areas.append(height * abs(width))
        ratios.append(abs(width) / height)
    assert 0.07 < min(areas) < 0.12
    assert 0.9 < max(areas) < 1.02
    assert np.mean(areas) == pytest.approx(0.54, abs=0.06)
    assert 0.72 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.39
    assert 120 < mirrored < 180


def test_crops_without_flips_are_the_same_crops_none_of_them_mirrored() -> None:
    ramp = torch.linspace(0, 1, 32).expand(3, 32, 32)
    pairs = [(crop_flip(ramp, [0, 0, n]), crop_flip(ramp, [0, 0, n], flips=False)) for n in range(40)]
    rising = [bool(plain[0, 8, -8] > plain[0, 8, 8]) for _, plain in pairs]
    assert all(rising)
    assert all(torch.equal(plain, flipped) or torch.equal(plain, flipped.flip(-1)) for flipped, plain in pairs)
    data = CropFlip(images(), labels(), nn.Identity(), flips=False).at(1, 2)
    assert torch.equal(data.batch(np.array([3])).inputs[0], crop_flip(images()[3], [1, 2, 3], flips=False))


class Pooled(nn.Module):
    """Logits = W x for prepared inputs x [B, 3]."""

    name = "pooled"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))

    def forward(self, batch: Batch) -> Tensor:
        return batch.inputs @ self.weight.T

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        ce = F.cross_entropy(logits, batch.labels)
        return ce, {"ce": ce}

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def averaging(self) -> GaussianAverage | None:
        return None

    def gradient_rule(self) -> None:
        return None


def prepare(pixels: Tensor) -> Tensor:
    return pixels[:, :, 4:8, 2:9].mean((2, 3))


def train(**run: Any) -> tuple[list[dict[str, float]], Tensor]:
    model = Pooled()
    val = Examples(prepare(images()), labels())
    data = CropFlip(images(), labels(), prepare)
    return descend(model, data, val, DESCENT, Run(5, **run)), model.weight.detach()


def test_each_epoch_is_trained_on_its_own_crops() -> None:
    model, by_hand = Pooled(), Pooled()
    data = CropFlip(images(), labels(), prepare)
    descend(model, data, data, DESCENT, Run(5))
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + np.cos(np.pi * epoch / 4)) / 2
        for rows in epoch_rows(10, 4, 5, epoch):
            pixels = torch.stack([crop_flip(images()[row], [5, epoch, row]) for row in rows.tolist()])
            optimizer.zero_grad()
            F.cross_entropy(prepare(pixels) @ by_hand.weight.T, labels()[rows]).backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, by_hand.weight, atol=1e-6, rtol=1e-6)


def test_an_interrupted_augmented_training_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        if epoch == 3:
            raise Interrupted("stopped by SIGTERM")
        return epoch_rows(n, batch_size, seed, epoch)

    checkpoint = Checkpoint(tmp_path / "c", every=2, identity="a")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("clinprompt.training.loop.epoch_rows", rows)
        train(checkpoint=checkpoint)
    assert checkpoint.path.exists()
    curves, weight = train(checkpoint=checkpoint)
    expected_curves, expected = train()
    assert curves == expected_curves
    assert torch.equal(weight, expected)


def test_micro_batches_see_the_same_crops() -> None:
    torch.testing.assert_close(train(micro_batches=2)[1], train()[1], atol=1e-6, rtol=1e-5)
