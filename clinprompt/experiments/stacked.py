"""Several runs of methods that tune a text context, trained in one process with one text batch.

The frozen text tower is the same for all, so the prompts of R runs go through it as one batch [sum of C, n, d]; all
else, from the order of the batches to the optimiser, is each run's own. Each run gets what it would get alone, up to
rounding: a matrix product of more rows sums in another order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.errors import BadParams
from clinprompt.progress import progress
from clinprompt.prompting.batches import Batch, Examples, epoch_rows
from clinprompt.prompting.context import ContextTuning
from clinprompt.training.checkpoint import Curves
from clinprompt.training.gradients import PartGradients
from clinprompt.training.loop import check_finite, measures
from clinprompt.training.optimiser import learning_rate, make_optimizer, set_rate

_EVALUATION_BATCH = 4096


@dataclass(frozen=True)
class Member:
    """One run of a stack: a method, its data, and the seed of the order in which it sees them."""

    method: ContextTuning
    train: Examples
    val: Examples
    seed: int


class _Running:
    """A member with its optimiser and what it has measured."""

    def __init__(self, member: Member) -> None:
        self.member, self.method, self.settings = member, member.method, member.method.config
        self.parameters = self.method.trainable_parameters()
        self.optimizer = make_optimizer(self.parameters.values(), self.settings)
        self.curves: Curves = []
        self.batches: list[Batch] = []
        self.seen: list[dict[str, Tensor]] = []

    def start(self, epoch: int) -> None:
        """Shuffle for an epoch; there are no batches any more when all epochs are done."""
        self.seen, self.batches = [], []
        if epoch < self.settings.epochs:
            member, train = self.member, self.member.train.at(self.member.seed, epoch)
            rows = epoch_rows(len(train), self.settings.batch_size, member.seed, epoch)
            self.batches = [train.batch(one) for one in rows]
            self.method.train()

    def loss(self, batch: Batch, texts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and its parts, for the unit features [C, e] of the prompts."""
        logits = self.method.logits(self.method.image_features(batch.inputs), texts)
        loss, parts = self.method.loss(batch, logits)
        self.seen.append(measures(loss, parts, logits, batch.labels))
        return loss, parts

    def step(self) -> None:
        """Follow the gradient that the parameters have."""
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        self.optimizer.step()

    def finish(self, epoch: int) -> None:
        """Add an epoch's row to the curves."""
        means = {key: float(torch.stack([one[key] for one in self.seen]).mean()) for key in self.seen[0]}
        check_finite(self.method, means["loss"], self.parameters, epoch, self.settings)
        self.curves.append({"epoch": epoch + 1, "learning_rate": learning_rate(epoch, self.settings), **means})

    def validate(self, texts: Tensor) -> None:
        """Add to the last row the accuracy on validation, for the unit features [C, e] of the prompts."""
        val, hits = self.member.val, 0
        self.method.eval()
        for start in range(0, len(val), _EVALUATION_BATCH):
            batch = val.batch(slice(start, start + _EVALUATION_BATCH))
            logits = self.method.logits(self.method.image_features(batch.inputs), texts)
            hits += int((logits.argmax(-1) == batch.labels).sum())
        self.curves[-1]["val_accuracy"] = hits / len(val)


def descend_stacked(members: Sequence[Member], *, mixed: bool = False, validates: bool = True) -> list[Curves]:
    """Train all members at once; each method is left as `fit` would leave it, and each has the curves of `fit`.

    The members' knobs, classes, data and numbers of steps may differ. They must be built on one backbone, and follow
    the gradient of their loss alike. There are no checkpoints.

    Args:
        mixed: compute the text tower in bfloat16, the rest in float32.
        validates: whether the curves tell the accuracy on validation after each epoch.

    Raises:
        BadParams: a method's prompts depend on the image, members can't be mixed, or a loss is no longer finite.
    """
    for member in members:
        if type(member.method).forward is not ContextTuning.forward:
            raise BadParams(f"{member.method.name} can't be trained stacked: its prompts depend on the image.")
    running = [_Running(member) for member in members]
    if len({one.method.gradient_rule() is None for one in running}) > 1:
        raise BadParams("A method that changes its gradient (prograd) can be stacked only with its own kind.")
    for epoch in progress(range(max(one.settings.epochs for one in running)), "training stacked", unit="epoch"):
        for one in running:
            one.start(epoch)
        active = [one for one in running if one.batches]
        for index in range(max(len(one.batches) for one in active)):
            _step([one for one in active if index < len(one.batches)], epoch, index, mixed)
        for one in active:
            one.finish(epoch)
        if validates:
            with torch.no_grad():
                for one, texts in zip(active, encode_batched([one.method for one in active], mixed), strict=True):
                    one.validate(texts)
    return [one.curves for one in running]


def encode_batched(methods: Sequence[ContextTuning], mixed: bool = False) -> list[Tensor]:
    """Each method's unit text features [C, e], float32, from one batch through the text tower that they share."""
    longest = max(method.prompts.ids.shape[1] for method in methods)
    room = [longest - method.prompts.ids.shape[1] for method in methods]
    pairs = list(zip(methods, room, strict=True))
    prompts = torch.cat([F.pad(m.prompts.fill(m.ctx), (0, 0, 0, more)) for m, more in pairs])
    ids = torch.cat([F.pad(m.prompts.ids, (0, more), value=m.prompts.padding) for m, more in pairs])
    with torch.autocast(prompts.device.type, torch.bfloat16, enabled=mixed):
        encoded = methods[0].tower.encode(prompts, ids)
    features = F.normalize(encoded.float(), dim=-1)
    return list(features.split([len(method.prompts.ids) for method in methods]))


def _step(active: list[_Running], epoch: int, index: int, mixed: bool) -> None:
    for one in active:
        set_rate(one.optimizer, epoch + index / len(one.batches), one.settings)
        one.optimizer.zero_grad(set_to_none=True)
    texts = encode_batched([one.method for one in active], mixed)
    losses = [one.loss(one.batches[index], some) for one, some in zip(active, texts, strict=True)]
    if active[0].method.gradient_rule() is None:
        torch.stack([loss for loss, _ in losses]).sum().backward()
    else:
        _combine(active, [parts for _, parts in losses])
    for one in active:
        one.step()


def _combine(active: list[_Running], parts: list[dict[str, Tensor]]) -> None:
    """Each member's rule on its own gradients: a member's parameters are in no other's loss."""
    owners = [(one, parameter) for one in active for parameter in one.parameters.values()]
    apart = PartGradients(parameter for _, parameter in owners)
    apart.add({name: torch.stack([some[name] for some in parts]).sum() for name in parts[0]}, 1.0)
    for index, (one, parameter) in enumerate(owners):
        rule = one.method.gradient_rule()
        parameter.grad = None if rule is None else rule(apart.at(index))
