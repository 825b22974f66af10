"""Optimisers and their schedule as the papers run them: a constant warm-up, then a cosine by epochs or by steps."""

import math
from collections.abc import Iterable

import torch

from clinprompt.prompting.optimisation import OptimiserSettings


def make_optimizer(parameters: Iterable[torch.nn.Parameter], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW with torch's betas."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=settings.learning_rate, eps=settings.epsilon, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        parameters, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def learning_rate(epoch: float, settings: OptimiserSettings) -> float:
    """The rate of a 0-based epoch k among E: the warm-up's for k < w, then lr (1 + cos(pi (k - w) / E)) / 2.

    So Dassl has it. A linear warm-up is lr k / w, and the cosine behind it goes over the E - w epochs that are left, as
    VPT and DVPT have it.

    Args:
        epoch: with a fraction, how far into an epoch; it counts where the schedule goes by steps.
    """
    if settings.schedule == "epoch":
        epoch = math.floor(epoch)
    rises = settings.warmup == "linear"
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * epoch / settings.warmup_epochs if rises else settings.warmup_learning_rate
    done = (epoch - settings.warmup_epochs) / (settings.epochs - (settings.warmup_epochs if rises else 0))
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


def set_rate(optimizer: torch.optim.Optimizer, epoch: float, settings: OptimiserSettings) -> None:
    """Give an optimiser the rate of this place in the training."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(epoch, settings)
