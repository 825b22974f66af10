"""The training loop: the same for every method and for whatever its batches hold."""

import math
import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from clinprompt.errors import BadParams, GpuOutOfMemory
from clinprompt.progress import progress
from clinprompt.training.averaging import GaussianAverage
from clinprompt.training.batches import Batch, Examples, epoch_rows
from clinprompt.training.checkpoint import Checkpoint, Curves
from clinprompt.training.schedule import Descent, learning_rate, make_optimizer

MICRO_BATCHES = "CLINPROMPT_MICRO_BATCHES"
_EVALUATION_BATCH = 4096


class Trainable(Protocol):
    """What the loop needs of a method.

    The loss must be a mean over the batch's examples, plus terms that don't depend on them: then the weighted sum over
    micro-batches is the loss of the whole batch.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, batch: Batch) -> Tensor: ...

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...

    def trainable_parameters(self) -> dict[str, nn.Parameter]: ...

    def averaging(self) -> GaussianAverage | None: ...


@dataclass(frozen=True)
class Run:
    """What a fit needs beside the data and the method's own knobs.

    Attributes:
        micro_batches: in how many parts each batch goes through the method, so that it takes less memory. The gradient
            is that of the whole batch, up to the order of sums.
        mixed: compute in bfloat16 where autocast finds that safe; the parameters stay in float32. On a GPU.
    """

    seed: int
    checkpoint: Checkpoint | None = None
    micro_batches: int = 1
    mixed: bool = False


def micro_batches(batch_size: int) -> int:
    """In how many parts the variable CLINPROMPT_MICRO_BATCHES splits a batch: 1 when it is not set, at most one each.

    Raises:
        BadParams: it is no whole number of at least 1.
    """
    text = os.environ.get(MICRO_BATCHES) or "1"
    if not (text.isascii() and text.isdigit() and int(text)):
        raise BadParams(f"The variable {MICRO_BATCHES} must be a whole number of at least 1, found {text!r}.")
    return min(int(text), batch_size)


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
    """Train by SGD with momentum or AdamW; the parameters after the last epoch, or their average, stay in the method.

    Equal inputs and seed give equal bytes on a CPU, also when an interrupted run is taken up from its checkpoint.

    Returns:
        A row per epoch: epoch (from 1), learning_rate, loss (mean over the epoch's steps), the loss's parts when it
        has several, train_accuracy (of the steps' own logits), val_accuracy (at the epoch's end).

    Raises:
        BadParams: the loss or a parameter is no longer finite; or the GPU's memory is too small even for one image.
        GpuOutOfMemory: it is too small for these micro-batches.
    """
    parameters = method.trainable_parameters()
    optimizer, average = make_optimizer(parameters.values(), descent), method.averaging()
    curves = run.checkpoint.restore(parameters, optimizer, average) if run.checkpoint else []
    for epoch in progress(range(len(curves), descent.epochs), f"training {method.name}", unit="epoch"):
        rate = learning_rate(epoch, descent)
        for group in optimizer.param_groups:
            group["lr"] = rate
        try:
            means = _epoch(method, optimizer, train, epoch, descent, run)
            _check_finite(method, means["loss"], parameters, epoch, descent)
            at_once = _EVALUATION_BATCH if run.micro_batches == 1 else _largest_part(train, descent, run)
            if average is not None:
                average.add(parameters, epoch, descent.epochs)
                if epoch == descent.epochs - 1:
                    average.put(parameters)
            with _autocast(run, val):
                val_accuracy = accuracy(method, val, at_once)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(method, _largest_part(train, descent, run), run, error) from None
        curves.append({"epoch": epoch + 1, "learning_rate": rate, **means, "val_accuracy": val_accuracy})
        if run.checkpoint and len(curves) % run.checkpoint.every == 0 and len(curves) < descent.epochs:
            run.checkpoint.save(parameters, optimizer, curves, average)
    return curves


@torch.no_grad()
def accuracy(method: Any, examples: Examples, at_once: int | None = None) -> float:
    """The share of examples whose largest logit is that of their class, computed `at_once` examples at a time."""
    hits, size = 0, at_once or _EVALUATION_BATCH
    for start in range(0, len(examples), size):
        batch = examples.batch(slice(start, start + size))
        hits += int((method(batch).argmax(-1) == batch.labels).sum())
    return hits / len(examples)


def _epoch(
    method: Trainable, optimizer: torch.optim.Optimizer, train: Examples, epoch: int, descent: Descent, run: Run
) -> dict[str, float]:
    steps = [
        _step(method, optimizer, train, np.array_split(rows, min(run.micro_batches, len(rows))), descent, run)
        for rows in epoch_rows(len(train), descent.batch_size, run.seed, epoch)
    ]
    return {key: float(torch.stack([step[key] for step in steps]).mean()) for key in steps[0]}


def _step(
    method: Trainable,
    optimizer: torch.optim.Optimizer,
    train: Examples,
    parts: list[np.ndarray],
    descent: Descent,
    run: Run,
) -> dict[str, Tensor]:
    """One step on a batch given as the rows of its micro-batches, each weighted by its share of the batch."""
    optimizer.zero_grad(set_to_none=True)
    total = sum(map(len, parts))
    shares = [len(rows) / total for rows in parts]
    seen = [_backward(method, train.batch(rows), share, run) for rows, share in zip(parts, shares, strict=True)]
    if descent.clip_norm is not None:
        nn.utils.clip_grad_norm_(method.trainable_parameters().values(), descent.clip_norm)
    optimizer.step()
    if len(seen) == 1:
        return seen[0]
    return {
        key: torch.stack([share * one[key] for share, one in zip(shares, seen, strict=True)]).sum() for key in seen[0]
    }


def _autocast(run: Run, data: Examples | Batch) -> torch.autocast:
    return torch.autocast(data.labels.device.type, torch.bfloat16, enabled=run.mixed)


def _backward(method: Trainable, batch: Batch, share: float, run: Run) -> dict[str, Tensor]:
    with _autocast(run, batch):
        logits = method(batch)
        loss, parts = method.loss(batch, logits.float())
    (share * loss).backward()
    hits = (logits.argmax(-1) == batch.labels).float().mean()
    # Tensors, not numbers: reading a number would make a GPU wait at each step.
    shown = parts if len(parts) > 1 else {}
    return {"loss": loss.detach(), **{k: v.detach() for k, v in shown.items()}, "train_accuracy": hits}


def _largest_part(train: Examples, descent: Descent, run: Run) -> int:
    """The number of images in the largest micro-batch."""
    return math.ceil(min(descent.batch_size, len(train)) / run.micro_batches)


def _out_of_memory(method: Trainable, images: int, run: Run, error: torch.OutOfMemoryError) -> Exception:
    """What to tell whoever decides about a retry: smaller micro-batches, or that there are none."""
    said = str(error).strip().split(". ")[0].rstrip(".") or "no details given"
    if images > 1:
        return GpuOutOfMemory(
            f"The GPU's memory is too small to train {method.name} with {images} images at a time ({said}); run again "
            f"with the variable {MICRO_BATCHES}={2 * run.micro_batches}, which gives the same effective batch."
        )
    return BadParams(
        f"The GPU's memory is too small to train {method.name} even with one image at a time ({said}), so running "
        "again won't help: free the GPU, take a larger one, or choose another backbone.name or training.device: cpu "
        "in params.yaml."
    )


def _check_finite(
    method: Trainable, loss: float, parameters: dict[str, nn.Parameter], epoch: int, descent: Descent
) -> None:
    if math.isfinite(loss) and all(bool(torch.isfinite(p).all()) for p in parameters.values()):
        return
    raise BadParams(
        f"params.yaml: methods.{method.name}.learning_rate: the loss is not finite any more in epoch {epoch + 1}; "
        f"choose a smaller learning rate than {descent.learning_rate:g}."
    )
