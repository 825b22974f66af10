"""Augmented pixels: what is drawn, that it can be drawn again, and what a method sees of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from clinprompt.data.preprocessing import Preprocessing
from clinprompt.errors import InputCorrupt, Interrupted
from clinprompt.files import sha256_bytes
from clinprompt.prompting.averaging import GaussianAverage
from clinprompt.prompting.batches import Batch, Examples, epoch_rows
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.training.augmentation import CropFlip, augmented, crop_flip
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.loop import Run, descend
from clinprompt.training.pictures import Pictures

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
    data = CropFlip(images(), labels(), nn.Identity(), augmentation="crop").at(1, 2)
    assert torch.equal(data.batch(np.array([3])).inputs[0], crop_flip(images()[3], [1, 2, 3], flips=False))


def drawn_files(folder: Path, n: int = 3) -> Pictures:
    """Wide images whose red says how far to the right a pixel is."""
    items = []
    for number in range(n):
        values = np.zeros((20, 60, 3), np.uint8)
        values[..., 0] = np.arange(60) * 4
        values[..., 1] = number
        path = folder / f"{number}.png"
        Image.fromarray(values).save(path)
        items.append((sha256_bytes(path.read_bytes()), path))
    return Pictures(items, Preprocessing(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), "auto")


def test_a_crop_is_of_the_whole_image_and_resized_once(tmp_path: Path) -> None:
    pictures = drawn_files(tmp_path)
    data = CropFlip(torch.zeros(3, 0), torch.arange(3), nn.Identity(), augmentation="crop", pictures=pictures)
    reds = []
    for epoch in range(60):
        batch = data.at(5, epoch).batch(np.array([2, 0]))
        assert batch.inputs.shape == (2, 3, 16, 16)
        assert batch.labels.tolist() == [2, 0]
        whole = torch.from_numpy(np.asarray(Image.open(tmp_path / "2.png")).copy()).permute(2, 0, 1)
        expected = crop_flip(whole, [5, epoch, 2], flips=False, size=16)
        torch.testing.assert_close(batch.inputs[0], (expected.float() / 255 - 0.5) / 0.25)
        reds.append((batch.inputs[0, 0] * 0.25 + 0.5) * 255)
    # A square from the middle would hold the reds of columns 20 to 40 alone, 80 to 160.
    assert min(float(red.min()) for red in reds) < 20
    assert max(float(red.max()) for red in reds) > 220


def test_decoded_images_are_kept_as_far_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, read = drawn_files(tmp_path), []
    monkeypatch.setattr("clinprompt.training.pictures.KEPT", 2 * 20 * 60 * 3)
    monkeypatch.setattr(
        "clinprompt.training.pictures.read_image", lambda item: read.append(item) or item[1].read_bytes()
    )
    for _ in range(2):
        assert [int(pictures.picture(row)[1, 0, 0]) for row in range(3)] == [0, 1, 2]
    assert [item[1].name for item in read] == ["0.png", "1.png", "2.png", "2.png"]


def test_an_image_of_other_bytes_than_its_id_is_refused(tmp_path: Path) -> None:
    pictures = drawn_files(tmp_path)
    (tmp_path / "1.png").write_bytes(b"another")
    with pytest.raises(InputCorrupt, match=r"1\.png is not the one that the manifest lists"):
        pictures.picture(1)


def test_fundus_turns_and_moves_and_can_be_drawn_again() -> None:
    image = torch.zeros(3, 24, 24, dtype=torch.uint8)
    image[:, 4:20, 10:14] = 200  # a bar that stands
    drawn = [augmented(image, [1, 2, n], "fundus", 16) for n in range(12)]
    assert all(one.shape == (3, 16, 16) and one.dtype == torch.uint8 for one in drawn)
    assert torch.equal(drawn[0], augmented(image, [1, 2, 0], "fundus", 16))
    spread = [(one[0] > 60).nonzero().float().std(0) for one in drawn]
    assert any(float(rows) > float(columns) + 1 for rows, columns in spread)
    assert any(float(columns) > float(rows) + 1 for rows, columns in spread)


def test_fundus_mirrors_half_of_the_images_and_changes_their_place_size_and_colours() -> None:
    image = torch.full((3, 48, 48), 40, dtype=torch.uint8)
    for channel, angle in enumerate(
        (0.0, 2.1, 4.2)
    ):  # a dot of each colour around the middle: mirrored, they run backwards
        row, column = 24 + round(10 * math.sin(angle)), 24 + round(10 * math.cos(angle))
        image[channel, row - 2 : row + 3, column - 2 : column + 3] = 220
    mirrored, places, sizes, greys = 0, [], [], []
    for n in range(60):
        one = augmented(image, [3, 4, n], "fundus").float()
        dots = [torch.where(one[c] > one.mean(0) + 40)[:] for c in range(3)]
        [a, b, c] = [torch.stack([rows.float().mean(), columns.float().mean()]) for rows, columns in dots]
        mirrored += bool((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0] > 0)
        places.append((a + b + c) / 3)
        sizes.append(float((a - b).norm()))
        greys.append(float(one[:, 24, 24].mean()))
    assert 15 <= mirrored <= 45  # binomial: outside once in 10,000 tries
    moved = torch.stack(places)
    assert bool((moved.std(0) > 1).all())  # a tenth of 48 pixels either way has a deviation of 2.8
    assert bool(((moved - 23.5).abs() < 12).all())
    assert 1.03 < max(sizes) / min(sizes) < 1.6
    assert max(greys) - min(greys) > 8


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
