"""The training loop: the same for every method and for whatever its batches hold."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clinprompt.contract.variables import MICRO_BATCHES
from clinprompt.errors import BadParams, BatchTooLarge, NotTrained
from clinprompt.progress import progress
from clinprompt.prompting.batches import Batch, Examples, epoch_rows
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.training.checkpoint import Checkpoint, Curves
from clinprompt.training.distributed import ALONE, Ranks
from clinprompt.training.gradients import PartGradients
from clinprompt.training.optimiser import learning_rate, make_optimizer, set_rate
from clinprompt.training.selection import BestEpoch, quadratic_kappa
from clinprompt.training.trainable import Trainable

log = logging.getLogger(__name__)

T = TypeVar("T")

_EVALUATION_BATCH = 4096  # features; whole images' tokens are larger
_EVALUATION_IMAGES = 64


@dataclass(frozen=True)
class Run:
    """What a fit needs beside the data and the method's own knobs.

    Attributes:
        micro_batches: in how many parts each batch goes through the method, so that it takes less memory. The gradient
            is that of the whole batch, up to the order of sums.
        mixed: compute in bfloat16 where autocast finds that safe; the parameters stay in float32.
        ranks: the processes that share the work, each with its micro-batches of every batch.
        validates: whether the curves tell the accuracy on validation after each epoch. With few images for training
            that takes longer than the training. `keep: kappa` validates anyhow.
    """

    seed: int
    checkpoint: Checkpoint | None = None
    micro_batches: int = 1
    mixed: bool = False
    ranks: Ranks = ALONE
    validates: bool = True


def micro_batches(batch_size: int) -> int:
    """In how many parts the variable CLINPROMPT_MICRO_BATCHES splits a batch: 1 when it is not set, at most one each.

    Raises:
        BadParams: it is no whole number of at least 1.
    """
    text = os.environ.get(MICRO_BATCHES) or "1"
    if not (text.isascii() and text.isdigit() and int(text)):
        raise BadParams(f"The variable {MICRO_BATCHES} must be a whole number of at least 1, found {text!r}.")
    return min(int(text), batch_size)


def with_smaller_batches(fit: Callable[[], T]) -> T:
    """Call `fit`; when the GPU's memory is too small for its batches, again with twice the micro-batches.

    Their number is in the variable CLINPROMPT_MICRO_BATCHES, which `fit` and the processes that it starts read; in the
    end it is what it was.

    Raises:
        BadParams: the memory is too small even for one image.
    """
    before = os.environ.get(MICRO_BATCHES)
    try:
        while True:
            try:
                return fit()
            except BatchTooLarge as error:
                log.warning("%s That is what happens now.", error)
                parts = 2 * int(os.environ.get(MICRO_BATCHES) or 1)
            os.environ[MICRO_BATCHES] = str(parts)
            torch.cuda.empty_cache()  # out here nothing holds the failed attempt's tensors any more
    finally:
        if before is None:
            os.environ.pop(MICRO_BATCHES, None)
        else:
            os.environ[MICRO_BATCHES] = before


def descend(method: Trainable, train: Examples, val: Examples, settings: OptimiserSettings, run: Run) -> Curves:
    """Train by SGD with momentum or AdamW; the parameters after the last epoch, or their average, stay in the method.

    Equal inputs and seed give equal bytes on a CPU, also when an interrupted run is taken up from its checkpoint.

    Returns:
        A row per epoch: epoch (from 1), learning_rate, loss (mean over the epoch's steps), the loss's parts when it
        has several, train_accuracy (of the steps' own logits), val_accuracy (at the epoch's end).

    Raises:
        BadParams: the loss or a parameter is no longer finite; or the GPU's memory is too small even for one image.
        BatchTooLarge: it is too small for these micro-batches.
    """
    if settings.warmup_epochs >= settings.epochs:
        log.warning(
            "training %s: all of its %d epochs are warm-up, at a rate below its learning rate of %g; set warmup_epochs "
            "below epochs.",
            method.name,
            settings.epochs,
            settings.learning_rate,
        )
    parameters = method.trainable_parameters()
    optimizer, average = make_optimizer(parameters.values(), settings), method.averaging()
    best = BestEpoch() if settings.keep == "kappa" else None
    curves = run.checkpoint.restore(parameters, optimizer, best or average) if run.checkpoint else []
    done, label = len(curves), f"training {method.name}"
    for epoch in progress(range(done, settings.epochs), label, settings.epochs, "epoch", done):
        rate = learning_rate(epoch, settings)
        try:
            with _seeded(run.seed, epoch):
                means = _epoch(method, optimizer, train, epoch, settings, run)
            check_finite(method, means["loss"], parameters, epoch, settings)
            if average is not None and best is None:
                average.add(parameters, epoch, settings.epochs)
                if epoch == settings.epochs - 1:
                    average.put(parameters)
            found = _validated(method, train, val, settings, run) if run.validates or best is not None else None
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(method, _largest_part(train, settings, run), run, error) from None
        curves.append({"epoch": epoch + 1, "learning_rate": rate, **means})
        if found is not None:
            curves[-1]["val_accuracy"] = _share_right(found, val)
        if best is not None and found is not None:
            curves[-1]["val_quadratic_kappa"] = quadratic_kappa(val.labels, found)
            best.offer(parameters, curves[-1]["val_quadratic_kappa"])
            if epoch == settings.epochs - 1:
                best.put(parameters)
        due = len(curves) < settings.epochs and run.checkpoint and len(curves) % run.checkpoint.every == 0
        if run.checkpoint and due and run.ranks.writes:
            run.checkpoint.save(parameters, optimizer, curves, best or average)
    return curves


def accuracy(method: Any, examples: Examples, at_once: int | None = None, ranks: Ranks = ALONE) -> float:
    """The share of examples whose largest logit is that of their class, computed `at_once` examples at a time."""
    return _share_right(predicted(method, examples, at_once, ranks), examples)


@torch.no_grad()
def predicted(method: Any, examples: Examples, at_once: int | None = None, ranks: Ranks = ALONE) -> Tensor:
    """The class [n] at which each example's largest logit is."""
    method.eval()
    found, size = torch.zeros_like(examples.labels), at_once or _EVALUATION_BATCH
    mine = ranks.span(len(examples))
    for start in mine[::size]:
        part = slice(start, min(start + size, mine.stop))
        found[part] = method(examples.batch(part)).argmax(-1)
    ranks.add([found])
    return found


def _share_right(found: Tensor, examples: Examples) -> float:
    return int((found == examples.labels).sum()) / len(examples)


def _epoch(
    method: Trainable,
    optimizer: torch.optim.Optimizer,
    train: Examples,
    epoch: int,
    settings: OptimiserSettings,
    run: Run,
) -> dict[str, float]:
    method.train()
    examples = train.at(run.seed, epoch)
    batches, steps = epoch_rows(len(train), settings.batch_size, run.seed, epoch), []
    label = f"epoch {epoch + 1} of {settings.epochs}"
    for number, rows in enumerate(progress(batches, label, len(batches), "step", nested=True)):
        set_rate(optimizer, epoch + number / len(batches), settings)
        steps.append(_step(method, optimizer, examples, rows, settings, run))
    return {key: float(torch.stack([step[key] for step in steps]).mean()) for key in steps[0]}


def _step(
    method: Trainable,
    optimizer: torch.optim.Optimizer,
    train: Examples,
    rows: np.ndarray,
    settings: OptimiserSettings,
    run: Run,
) -> dict[str, Tensor]:
    """One step on a batch given as rows, in micro-batches that are each weighted by their share of the batch."""
    optimizer.zero_grad(set_to_none=True)
    parameters = list(method.trainable_parameters().values())
    parts, shares = run.ranks.share(rows, run.micro_batches)
    rule = method.gradient_rule()
    part_gradients = PartGradients(parameters) if rule is not None else None
    micro_values = [
        _backward(method, train.batch(part), share, run, part_gradients)
        for part, share in zip(parts, shares, strict=True)
    ]
    run.ranks.add(part_gradients.tensors() if part_gradients else [p.grad for p in parameters if p.grad is not None])
    if rule is not None and part_gradients is not None:
        part_gradients.combine(rule)
    if settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
    optimizer.step()
    if len(micro_values) == run.ranks.size == 1:
        return micro_values[0]
    means = {
        key: torch.stack([share * values[key] for share, values in zip(shares, micro_values, strict=True)]).sum()
        for key in micro_values[0]
    }
    run.ranks.add(means.values())
    return means


@contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[None]:
    """What is drawn in an epoch (dropout) depends on the seed and the epoch only; the caller's generators stay."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng([seed, epoch]).integers(2**63)))
        yield


def _validated(method: Trainable, train: Examples, val: Examples, settings: OptimiserSettings, run: Run) -> Tensor:
    """The classes that validation images are predicted as."""
    with _autocast(run, val):
        return predicted(method, val, _at_once(train, val, settings, run), run.ranks)


def _autocast(run: Run, data: Examples | Batch) -> torch.autocast:
    return torch.autocast(data.labels.device.type, torch.bfloat16, enabled=run.mixed)


def _backward(
    method: Trainable, batch: Batch, share: float, run: Run, part_gradients: PartGradients | None
) -> dict[str, Tensor]:
    """Add a micro-batch's gradient: to the parameters', or to `part_gradients` for each part of the loss."""
    with _autocast(run, batch):
        logits = method(batch)
        loss, parts = method.loss(batch, logits.float())
    if part_gradients is None:
        (share * loss).backward()
    else:
        part_gradients.add(parts, share)
    return measures(loss, parts, logits, batch.labels)


def measures(loss: Tensor, parts: dict[str, Tensor], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What a step adds to its epoch's row of the curves: tensors, as reading a number would make a GPU wait."""
    hits = (logits.argmax(-1) == labels).float().mean()
    shown = parts if len(parts) > 1 else {}
    return {"loss": loss.detach(), **{k: v.detach() for k, v in shown.items()}, "train_accuracy": hits}


def _at_once(train: Examples, val: Examples, settings: OptimiserSettings, run: Run) -> int:
    """How many validation examples are computed at once."""
    if run.micro_batches > 1:
        return _largest_part(train, settings, run)
    return _EVALUATION_BATCH if val.inputs.dim() == 2 else _EVALUATION_IMAGES


def _largest_part(train: Examples, settings: OptimiserSettings, run: Run) -> int:
    """The number of images in the largest micro-batch."""
    return math.ceil(min(settings.batch_size, len(train)) / run.ranks.size / run.micro_batches)


def _out_of_memory(method: Trainable, images: int, run: Run, error: torch.OutOfMemoryError) -> Exception:
    """What to tell whoever decides about a retry: smaller micro-batches, or that there are none."""
    cause = str(error).strip().split(". ")[0].rstrip(".") or "no details given"
    if images > 1:
        return BatchTooLarge(
            f"The GPU's memory is too small to train {method.name} with {images} images at a time ({cause}); run again "
            f"with the variable {MICRO_BATCHES}={2 * run.micro_batches}, which gives the same effective batch."
        )
    return BadParams(
        f"The GPU's memory is too small to train {method.name} even with one image at a time ({cause}), so running "
        "again won't help: free the GPU, take a larger one, or choose another backbone.name or training.device: cpu "
        "in params.yaml."
    )


def check_finite(
    method: Trainable, loss: float, parameters: dict[str, nn.Parameter], epoch: int, settings: OptimiserSettings
) -> None:
    if math.isfinite(loss) and all(bool(torch.isfinite(p).all()) for p in parameters.values()):
        return
    raise NotTrained(
        f"params.yaml: methods.{method.name}.learning_rate: the loss is not finite any more in epoch {epoch + 1}; "
        f"choose a smaller learning rate than {settings.learning_rate:g}."
    )
