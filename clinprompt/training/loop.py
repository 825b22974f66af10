"""The training loop: the same for every method and for whatever its batches hold."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clinprompt.errors import BadParams
from clinprompt.progress import progress
from clinprompt.training.batches import Batch, Examples, epoch_rows
from clinprompt.training.checkpoint import Checkpoint, Curves
from clinprompt.training.schedule import Descent, learning_rate

_EVALUATION_BATCH = 4096


class Trainable(Protocol):
    """What the loop needs of a method."""

    @property
    def name(self) -> str: ...

    def __call__(self, batch: Batch) -> Tensor: ...

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...

    def trainable_parameters(self) -> dict[str, nn.Parameter]: ...


@dataclass(frozen=True)
class Run:
    """What a fit needs beside the data and the method's own knobs."""

    seed: int
    checkpoint: Checkpoint | None = None


def choose_device(asked: str) -> str:
    """The device that `training.device` ("auto", "cpu" or "cuda") means here.

    Raises:
        BadParams: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise BadParams(
            "params.yaml: training.device: cuda is asked for, but torch finds no GPU here; set auto or cpu."
        )
    return "cuda" if available and asked != "cpu" else "cpu"


def descend(method: Trainable, train: Examples, val: Examples, descent: Descent, run: Run) -> Curves:
    """Train by SGD with momentum; the parameters after the last epoch stay in the method.

    Equal inputs and seed give equal bytes on a CPU, also when an interrupted run is taken up from its checkpoint.

    Returns:
        A row per epoch: epoch (from 1), learning_rate, loss (mean over the epoch's steps), the loss's parts when it
        has several, train_accuracy (of the steps' own logits), val_accuracy (at the epoch's end).

    Raises:
        BadParams: the loss or a parameter is no longer finite.
    """
    parameters = method.trainable_parameters()
    optimizer = torch.optim.SGD(
        parameters.values(), lr=descent.learning_rate, momentum=descent.momentum, weight_decay=descent.weight_decay
    )
    curves = run.checkpoint.restore(parameters, optimizer) if run.checkpoint else []
    for epoch in progress(range(len(curves), descent.epochs), f"training {method.name}", unit="epoch"):
        rate = learning_rate(epoch, descent)
        for group in optimizer.param_groups:
            group["lr"] = rate
        steps = [
            _step(method, optimizer, train.batch(rows))
            for rows in epoch_rows(len(train), descent.batch_size, run.seed, epoch)
        ]
        means = {key: float(torch.stack([step[key] for step in steps]).mean()) for key in steps[0]}
        _check_finite(method, means["loss"], parameters, epoch, descent)
        row = {"epoch": epoch + 1, "learning_rate": rate, **means, "val_accuracy": accuracy(method, val)}
        curves.append(row)
        if run.checkpoint and len(curves) % run.checkpoint.every == 0 and len(curves) < descent.epochs:
            run.checkpoint.save(parameters, optimizer, curves)
    return curves


@torch.no_grad()
def accuracy(method: Any, examples: Examples) -> float:
    """The share of examples whose largest logit is that of their class."""
    hits = 0
    for start in range(0, len(examples), _EVALUATION_BATCH):
        batch = examples.batch(slice(start, start + _EVALUATION_BATCH))
        hits += int((method(batch).argmax(-1) == batch.labels).sum())
    return hits / len(examples)


def _step(method: Trainable, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, Tensor]:
    logits = method(batch)
    loss, parts = method.loss(batch, logits)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    hits = (logits.argmax(-1) == batch.labels).float().mean()
    # Tensors, not numbers: reading a number would make a GPU wait at each step.
    shown = parts if len(parts) > 1 else {}
    return {"loss": loss.detach(), **{k: v.detach() for k, v in shown.items()}, "train_accuracy": hits}


def _check_finite(
    method: Trainable, loss: float, parameters: dict[str, nn.Parameter], epoch: int, descent: Descent
) -> None:
    if math.isfinite(loss) and all(bool(torch.isfinite(p).all()) for p in parameters.values()):
        return
    raise BadParams(
        f"params.yaml: methods.{method.name}.learning_rate: the loss is not finite any more in epoch {epoch + 1}; "
        f"choose a smaller learning rate than {descent.learning_rate:g}."
    )
