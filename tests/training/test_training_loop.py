"""The training loop: its schedule, order, checkpoints and errors, on a model small enough to follow by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn

from clinprompt.errors import BadParams, BatchTooLarge, NotTrained
from clinprompt.prompting.averaging import GaussianAverage
from clinprompt.prompting.batches import Batch, Examples, epoch_rows
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.loop import Run, accuracy, descend, micro_batches
from clinprompt.training.optimiser import learning_rate

KNOBS: dict[str, Any] = {
    "learning_rate": 0.2, "momentum": 0.9, "weight_decay": 0.01, "warmup_epochs": 1, "warmup_learning_rate": 0.01,
    "batch_size": 4, "epochs": 7,
}  # fmt: skip
DESCENT = OptimiserSettings(**KNOBS)


class Softmax(nn.Module):
    """Logits = W v; the loss has a second part, half the squared norm of W."""

    name = "softmax"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 2))

    def forward(self, batch: Batch) -> Tensor:
        return batch.inputs @ self.weight.T

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        parts = {"ce": F.cross_entropy(logits, batch.labels), "norm": 0.05 * self.weight.square().sum()}
        return parts["ce"] + parts["norm"], parts

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def averaging(self) -> GaussianAverage | None:
        return None

    def gradient_rule(self) -> None:
        return None


def data(n: int = 18, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return Examples.of(np.eye(3)[labels][:, :2] + 0.3 * rng.normal(size=(n, 2)), labels)


def train(checkpoint: Checkpoint | None = None, **knobs: Any) -> tuple[list[dict[str, float]], Tensor]:
    model = Softmax()
    curves = descend(model, data(), data(10, 1), OptimiserSettings(**KNOBS | knobs), Run(5, checkpoint))
    return curves, model.weight.detach()


def test_a_training_that_is_all_warm_up_says_so(caplog: pytest.LogCaptureFixture) -> None:
    train(warmup_epochs=6)
    assert "warm-up" not in caplog.text
    train(warmup_epochs=7)
    assert "training softmax: all of its 7 epochs are warm-up, at a rate below its learning rate of 0.2" in caplog.text


def by_hand() -> np.ndarray:
    """The same training in numpy: the gradient of the softmax by its formula, momentum as in torch's SGD."""
    x, y = data().inputs.numpy().astype(np.float64), data().labels.numpy()
    weight, velocity = np.zeros((3, 2)), None
    for epoch in range(7):
        rate = 0.01 if epoch == 0 else 0.2 * (1 + math.cos(math.pi * (epoch - 1) / 7)) / 2
        order = np.random.default_rng([5, epoch]).permutation(18)
        for step in range(4):
            rows = order[4 * step : 4 * step + 4]
            z = np.exp(x[rows] @ weight.T)
            p = z / z.sum(1, keepdims=True)
            gradient = (p - np.eye(3)[y[rows]]).T @ x[rows] / 4 + 0.1 * weight + 0.01 * weight
            velocity = gradient if velocity is None else 0.9 * velocity + gradient
            weight = weight - rate * velocity
    return weight


def test_training_equals_the_same_steps_by_hand() -> None:
    np.testing.assert_allclose(train()[1].numpy(), by_hand(), atol=1e-5)


def test_the_learning_rate_is_a_constant_warm_up_and_then_torchs_cosine() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    expected = [0.01]
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert [learning_rate(k, DESCENT) for k in range(7)] == pytest.approx(expected, rel=1e-12)
    assert [row["learning_rate"] for row in train()[0]] == pytest.approx(expected, rel=1e-12)


def test_an_epoch_visits_each_example_at_most_once_and_leaves_out_the_incomplete_batch() -> None:
    batches = epoch_rows(18, 4, seed=1, epoch=0)
    rows = np.concatenate(batches)
    assert [len(b) for b in batches] == [4, 4, 4, 4]
    assert len(set(rows.tolist())) == 16
    assert [len(b) for b in epoch_rows(3, 4, seed=1, epoch=0)] == [3]


def test_the_order_depends_on_seed_and_epoch() -> None:
    first = np.concatenate(epoch_rows(32, 4, 1, 0))
    assert np.array_equal(first, np.concatenate(epoch_rows(32, 4, 1, 0)))
    assert not np.array_equal(first, np.concatenate(epoch_rows(32, 4, 2, 0)))
    assert not np.array_equal(first, np.concatenate(epoch_rows(32, 4, 1, 1)))


def test_curves_hold_the_losses_parts() -> None:
    curves, _ = train()
    assert list(curves[0]) == ["epoch", "learning_rate", "loss", "ce", "norm", "train_accuracy", "val_accuracy"]
    assert [row["epoch"] for row in curves] == list(range(1, 8))
    assert all(row["loss"] == pytest.approx(row["ce"] + row["norm"], abs=1e-6) for row in curves)


def test_the_epoch_with_the_best_kappa_on_validation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, val = OptimiserSettings(**KNOBS | {"keep": "kappa", "learning_rate": 9.0}), data(30, 1)

    def after(epochs: int) -> Tensor:
        model = Softmax()
        with monkeypatch.context() as patch:
            stop_at(patch, epochs)
            with pytest.raises(Stopped):
                descend(model, data(), val, settings, Run(5))
        return model.weight.detach()

    model = Softmax()
    kappas = [row["val_quadratic_kappa"] for row in descend(model, data(), val, settings, Run(5))]
    at = kappas.index(max(kappas))
    assert at + 1 < len(kappas)  # another than the last
    assert torch.equal(model.weight, after(at + 1))
    found = model(val.batch(slice(None))).argmax(-1).numpy()
    assert kappas[at] == pytest.approx(cohen_kappa_score(val.labels.numpy(), found, weights="quadratic"), abs=1e-9)


def test_the_rate_may_fall_with_every_step() -> None:
    assert not torch.equal(train(schedule="step")[1], train()[1])


def test_accuracy_counts_hits_over_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinprompt.training.loop._EVALUATION_BATCH", 3)
    model = Softmax()
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    examples = Examples.of(np.array([[1, 0], [0, 1], [-1, -1], [1, 0]]), np.array([0, 1, 2, 1]))
    assert accuracy(model, examples) == 0.75


class Stopped(BaseException):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let the training die when it asks for the batches of `epoch`, as a killed process would."""

    def rows(n: int, batch_size: int, seed: int, at: int) -> list[np.ndarray]:
        if at == epoch:
            raise Stopped
        return epoch_rows(n, batch_size, seed, at)

    monkeypatch.setattr("clinprompt.training.loop.epoch_rows", rows)


@pytest.mark.parametrize("knobs", [{}, {"momentum": 0.0}, {"keep": "kappa", "learning_rate": 9.0}])
@pytest.mark.parametrize("killed_in", [1, 4, 5, 6])
def test_resuming_gives_the_same_bytes_as_not_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int, knobs: dict[str, Any]
) -> None:
    checkpoint = Checkpoint(tmp_path / "c", every=2, identity="a")
    with monkeypatch.context() as patch:
        stop_at(patch, killed_in)
        with pytest.raises(Stopped):
            train(checkpoint, **knobs)
    assert checkpoint.path.exists() == (killed_in >= 2)
    curves, weight = train(checkpoint, **knobs)
    expected_curves, expected_weight = train(**knobs)
    assert curves == expected_curves
    assert torch.equal(weight, expected_weight)


def test_resuming_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "c", every=2, identity="a")
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Stopped):
            train(checkpoint)
    visited = []

    def rows(n: int, batch_size: int, seed: int, at: int) -> list[np.ndarray]:
        visited.append(at)
        return epoch_rows(n, batch_size, seed, at)

    monkeypatch.setattr("clinprompt.training.loop.epoch_rows", rows)
    train(checkpoint)
    assert visited == [4, 5, 6]


@pytest.mark.parametrize("spoil", ["other identity", "torn"])
def test_a_checkpoint_of_another_computation_or_a_torn_one_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    path = tmp_path / "c"
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Stopped):
            train(Checkpoint(path, 2, "a"), learning_rate=0.9)
    if spoil == "torn":
        path.write_bytes(path.read_bytes()[:100])
    found = train(Checkpoint(path, 2, "a" if spoil == "torn" else "b"))
    assert found[0] == train()[0]


def test_a_deleted_checkpoint_is_gone_and_may_be_absent(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", every=2, identity="a")
    train(checkpoint)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    checkpoint.delete()
    checkpoint.delete()
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_names_the_learning_rate() -> None:
    with pytest.raises(
        NotTrained, match=r"methods\.softmax\.learning_rate: .* epoch \d+; choose a smaller .* than 1e\+30"
    ):
        train(learning_rate=1e30)


class Crowded(Softmax):
    """Runs out of memory, as a GPU does, for more than `room` images at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, batch: Batch) -> Tensor:
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")
        return super().forward(batch)


def train_crowded(room: int, micro_batches: int, **knobs: Any) -> tuple[list[dict[str, float]], Tensor]:
    model = Crowded(room)
    run = Run(5, micro_batches=micro_batches)
    return descend(model, data(), data(10, 1), OptimiserSettings(**KNOBS | knobs), run), model.weight.detach()


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
def test_micro_batches_give_the_training_of_the_whole_batch(parts: int) -> None:
    expected_curves, expected = train(batch_size=7)
    curves, weight = train_crowded(math.ceil(7 / parts), parts, batch_size=7)
    torch.testing.assert_close(weight, expected, atol=1e-6, rtol=1e-5)
    assert [list(row) for row in curves] == [list(row) for row in expected_curves]
    for row, other in zip(curves, expected_curves, strict=True):
        assert row == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(("room", "parts", "advice"), [(3, 1, "=2"), (1, 2, "=4")])
def test_running_out_of_memory_asks_for_more_micro_batches(room: int, parts: int, advice: str) -> None:
    with pytest.raises(BatchTooLarge, match=rf"at a time \(CUDA out of memory\); .*CLINPROMPT_MICRO_BATCHES{advice},"):
        train_crowded(room, parts)
    assert len(train_crowded(room, parts * 2)[0]) == 7


def test_no_room_for_a_single_image_is_said_not_to_be_worth_a_retry() -> None:
    with pytest.raises(BadParams, match="even with one image at a time .*, so running again won't help: .*backbone"):
        train_crowded(0, 4)


def test_the_number_of_micro_batches_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINPROMPT_MICRO_BATCHES", raising=False)
    assert micro_batches(32) == 1
    for text, expected in (("", 1), ("4", 4), ("64", 32)):
        monkeypatch.setenv("CLINPROMPT_MICRO_BATCHES", text)
        assert micro_batches(32) == expected
    for text in ("0", "-1", "two", "1.5", "²"):
        monkeypatch.setenv("CLINPROMPT_MICRO_BATCHES", text)
        with pytest.raises(BadParams, match="CLINPROMPT_MICRO_BATCHES must be a whole number of at least 1, found"):
            micro_batches(32)
