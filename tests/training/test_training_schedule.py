"""Learning rates over a training, and what an epoch is chosen by."""

import math
from typing import Any

import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from torch import nn

from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.training.optimiser import learning_rate
from clinprompt.training.selection import quadratic_kappa

KNOBS: dict[str, Any] = {
    "learning_rate": 0.2, "warmup_epochs": 1, "warmup_learning_rate": 0.01, "batch_size": 4, "epochs": 7,
}  # fmt: skip


def test_a_linear_warm_up_rises_from_0_and_its_cosine_ends_at_0_with_the_last_epoch() -> None:
    settings = OptimiserSettings(**KNOBS | {"warmup": "linear", "warmup_epochs": 4, "epochs": 20})
    rates = [learning_rate(k, settings) for k in range(20)]
    assert rates[:5] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert rates[12] == pytest.approx(0.1)
    assert rates[5:] == pytest.approx([0.1 * (1 + math.cos(math.pi * k / 16)) for k in range(1, 16)])
    all_rising = settings.model_copy(update={"epochs": 4})
    assert [learning_rate(k, all_rising) for k in range(4)] == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_by_steps_the_rate_is_torchs_cosine_over_all_steps() -> None:
    settings = OptimiserSettings(**KNOBS | {"schedule": "step", "warmup_epochs": 0, "epochs": 5})
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=settings.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5 * 3)
    expected = []
    for _ in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    found = [learning_rate(k + step / 3, settings) for k in range(5) for step in range(3)]
    assert found == pytest.approx(expected, rel=1e-9)
    by_epoch = settings.model_copy(update={"schedule": "epoch"})
    assert learning_rate(2 + 2 / 3, by_epoch) == learning_rate(2, by_epoch)


def test_kappa_is_scikit_learns_and_0_where_all_are_of_one_class() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, found = (torch.randint(0, 4, (50,), generator=generator) for _ in range(2))
    expected = cohen_kappa_score(labels.numpy(), found.numpy(), weights="quadratic")
    assert quadratic_kappa(labels, found) == pytest.approx(expected, abs=1e-12)
    assert quadratic_kappa(torch.zeros(3), torch.zeros(3)) == 0.0


def test_the_published_rates_come_out() -> None:
    coop = OptimiserSettings(**KNOBS | {"learning_rate": 0.002, "warmup_learning_rate": 1e-5, "epochs": 50})
    found = [learning_rate(k, coop) for k in (0, 1, 26, 49)]
    assert found == pytest.approx([1e-5, 0.002, 0.001, 7.885298685522e-06], rel=1e-9)
