"""The linear probe: an optimum of the penalised likelihood, with the strength that serves the validation split best."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit as train_method
from clinprompt.training.loop import Run


def fit(backbone: Any, train: Examples, val: Examples, classes: int) -> tuple[Any, dict[str, float]]:
    config = check_config("linear_probe", {"max_iterations": 2000})
    model = method("linear_probe")(Task(backbone, tuple("abcdefg"[:classes]), 0), config)
    return model, train_method(model, train, val, Run(0))[0]


def unit(examples: Examples) -> np.ndarray:
    x = examples.inputs.numpy().astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def optimum(x: np.ndarray, y: np.ndarray, classes: int, c: float, at: np.ndarray) -> np.ndarray:
    """Softmax regression with an L2 penalty on the weights, minimised from its formula; the logits of rows `at`."""
    n, e = x.shape

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = theta[: classes * e].reshape(classes, e), theta[classes * e :]
        z = x @ weight.T + bias
        z -= z.max(1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        value = -c * np.log(p[np.arange(n), y]).sum() + 0.5 * (weight**2).sum()
        residual = c * (p - np.eye(classes)[y])
        return value, np.concatenate([(residual.T @ x + weight).ravel(), residual.sum(0)])

    theta = minimize(objective, np.zeros(classes * (e + 1)), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return at @ theta[: classes * e].reshape(classes, e).T + theta[classes * e :]


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_the_optimum_for_its_strength(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Any], classes: int
) -> None:
    train, val = make_examples(120, classes, spread=2.0), make_examples(80, classes, seed=1, spread=2.0)
    model, row = fit(make_backbone("clip"), train, val, classes)
    # With two classes sklearn penalises the difference w of the rows: w²/2, where two rows ±w/2 cost w²/4.
    c = 10 ** row["log10_c"] / (2 if classes == 2 else 1)
    x = unit(train)
    expected = torch.from_numpy(optimum(x, train.labels.numpy(), classes, c, x)).softmax(-1)
    found = model(train.batch(slice(None))).double().softmax(-1)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_no_strength_of_the_grid_serves_the_validation_split_better(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Any]
) -> None:
    train, val = make_examples(24, 3, spread=2.0), make_examples(400, 3, seed=1, spread=2.0)
    model, row = fit(make_backbone("clip"), train, val, 3)
    hits = []
    for log_c in (-6, -4, -2, 0, 2, 4):
        logits = optimum(unit(train), train.labels.numpy(), 3, 10.0**log_c, unit(val))
        hits.append((logits.argmax(1) == val.labels.numpy()).mean())
    assert max(hits) - min(hits) > 0.02
    assert row["val_accuracy"] >= max(hits) - 1 / 400
    logits = model(val.batch(slice(None)))
    assert row["val_accuracy"] == pytest.approx((logits.argmax(-1) == val.labels).float().mean().item())


def test_the_probe_repeats_itself(make_backbone: Callable[[str], Any], make_examples: Callable[..., Any]) -> None:
    train, val = make_examples(60, 3, spread=3.0), make_examples(60, 3, seed=1, spread=3.0)
    first, second = (fit(make_backbone("clip"), train, val, 3)[0].export_head() for _ in range(2))
    assert set(first) == {"weight", "bias", "scale"}
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["weight"].dtype == torch.float32


def test_of_equally_accurate_strengths_the_one_with_the_least_loss_is_taken(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Any]
) -> None:
    train, val = (
        make_examples(60, 2, spread=0.1),
        make_examples(40, 2, seed=1, spread=0.1),
    )
    model, row = fit(make_backbone("clip"), train, val, 2)
    chances = model(val.batch(slice(None))).softmax(-1)
    assert (chances.argmax(-1) == val.labels).all()
    assert row["log10_c"] > 0  # the strongest of the grid, -6, would give each class a half
    assert float(chances.max(-1).values.min().detach()) > 0.95
