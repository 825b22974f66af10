"""Linear probe: logistic regression on the frozen features, its strength chosen on the validation split."""

import logging
import warnings
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from clinprompt.methods import register
from clinprompt.prompting.base import FeatureMethod, Head, Task
from clinprompt.prompting.batches import Examples
from clinprompt.schema import Section

log = logging.getLogger(__name__)

_GRID = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)  # log10 of C
_BINARY_STEPS = 8


class LinearProbeConfig(Section):
    """`max_iterations` of Newton-CG for each strength that is tried: CLIP's 1,000 (Radford et al. 2021, A.3)."""

    max_iterations: PositiveInt = 1000


@register("linear_probe")
class LinearProbe(FeatureMethod):
    """L2-regularised multinomial logistic regression with intercept on unit features.

    The inverse strength C is searched as in the CLIP paper's probes (Radford et al. 2021, appendix A.3): the best of
    seven powers of ten by validation accuracy, then eight steps that halve the bracket around it. Of equally accurate
    ones that with the least validation loss is taken: the strongest regularisation would be as accurate, but unsure
    of everything.
    """

    Config: ClassVar[type[Section]] = LinearProbeConfig
    config: LinearProbeConfig
    weight: Tensor
    bias: Tensor
    log10_c: float

    def __init__(self, task: Task, config: LinearProbeConfig) -> None:
        super().__init__(task, config)
        classes, width, device = len(task.class_names), task.backbone.embed_dim, task.backbone.device
        self.register_buffer("weight", torch.zeros(classes, width, device=device))
        self.register_buffer("bias", torch.zeros(classes, device=device))

    @classmethod
    def class_axes(cls, config: LinearProbeConfig) -> Mapping[str, int]:
        """Those of the regression, of which each class has a row."""
        return {"weight": 0, "bias": 0}

    def head(self) -> Head:
        """The regression's coefficients and intercepts."""
        return Head(self.weight, 1.0, self.bias)

    def start(self, train: Examples, val: Examples) -> None:
        """Search C and keep the best regression."""
        search = _Search(_unit(train), _numpy(train.labels), _unit(val), _numpy(val.labels), self.config.max_iterations)
        self.log10_c = search.best()
        # Row by row in memory, as a saved model has them: another order has other roundings.
        arrays = (np.ascontiguousarray(a) for a in search.coefficients(self.log10_c))
        weight, bias = (torch.tensor(a, dtype=torch.float32) for a in arrays)
        self.weight, self.bias = weight.to(self.weight.device), bias.to(self.bias.device)

    def trained_count(self) -> int:
        """Those of the regression: of two classes it has one row, the difference between theirs."""
        rows = 1 if len(self.weight) == 2 else len(self.weight)
        return rows * (self.weight.shape[1] + 1)

    def findings(self) -> dict[str, float]:
        """The logarithm of the best C."""
        return {"log10_c": self.log10_c}


class _Search:
    """Regressions by log10 C, each fitted once."""

    def __init__(self, x: np.ndarray, y: np.ndarray, val_x: np.ndarray, val_y: np.ndarray, iterations: int) -> None:
        self.x, self.y, self.val_x, self.val_y, self.iterations = x, y, val_x, val_y, iterations
        self.fitted: dict[float, tuple[tuple[float, float], LogisticRegression]] = {}

    def best(self) -> float:
        for log_c in _GRID:
            self.quality(log_c)
        peak = self._best_so_far()
        low, high = peak - 1, peak + 1
        for _ in range(_BINARY_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.quality(low) < self.quality(high) else (low, middle)
        return self._best_so_far()

    def quality(self, log_c: float) -> tuple[float, float]:
        """Accuracy on the validation split, then minus the mean loss there."""
        if log_c not in self.fitted:
            # For hundreds of features this needs a tenth of the time of L-BFGS, and converges where that gives up.
            model = LogisticRegression(C=10**log_c, max_iter=self.iterations, solver="newton-cg")
            with warnings.catch_warnings():
                # Hardly regularised fits need not converge to be compared.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(self.x, self.y)
            chances = model.predict_proba(self.val_x)
            right = chances[np.arange(len(self.val_y)), np.searchsorted(model.classes_, self.val_y)]
            loss = -float(np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())
            accuracy = float(np.mean(model.classes_[chances.argmax(axis=1)] == self.val_y))
            self.fitted[log_c] = (accuracy, -round(loss, 9)), model
        return self.fitted[log_c][0]

    def coefficients(self, log_c: float) -> tuple[np.ndarray, np.ndarray]:
        model = self.fitted[log_c][1]
        if int(np.max(model.n_iter_)) >= self.iterations:
            log.warning("linear_probe: not converged after %d iterations (max_iterations)", self.iterations)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes: the one row is the difference between theirs
            return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight, bias

    def _best_so_far(self) -> float:
        return max(self.fitted, key=lambda log_c: (self.fitted[log_c][0], -log_c))


def _numpy(x: Tensor) -> np.ndarray:
    return x.cpu().numpy()


def _unit(examples: Examples) -> np.ndarray:
    x = _numpy(examples.inputs).astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
