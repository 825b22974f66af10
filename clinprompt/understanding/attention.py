"""Which patches speak for a class in the image tower's last attention (after Grad-ECLIP, arXiv 2502.18816)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clinprompt.backbones.vision import VisionTower
from clinprompt.understanding.models import InspectedModel

_SAME = 1e-3  # relative distance up to which two tokens in front of the first block are one


def relevance(model: InspectedModel, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How much each patch speaks for the class of its image, and the class's probability.

    Args:
        pixels: preprocessed [B, 3, S, S], or volumes [B, 1, D, H, W].
        labels: the classes' numbers [B].

    Returns:
        Maps [B, G, G] (of volumes [B, D', H', W']), at least 0, and probabilities [B]. With o the output of the last
        block's attention for the rows that are read out, o_rh = Σ_i a_rhi v_hi over heads h and tokens i, and S the
        log-odds of the class,

            map_i = ReLU(Σ_rh a_rhi ⟨∂S/∂o_rh, v_hi⟩),

        in the grid of the patches, 0 where the model does not see one.

        Grad-ECLIP's gradient and values, with two differences: a are the model's own attention weights of all heads
        instead of the normalised similarity of one query with the keys, so that the sum over all tokens is the
        gradient's own product with o; and S is the log-odds instead of the class's cosine, so that what speaks for all
        classes alike cancels.

    Raises:
        BadParams: the image tower can't be opened up.
    """
    tower = model.tower()
    pixels = pixels.detach().requires_grad_()
    with torch.enable_grad(), _recording(tower) as tape:
        logits = model.logits(model.prepare(pixels))
    query, key, value, out = tape.attention
    (gradient,) = torch.autograd.grad(log_odds(logits, labels).sum(), out)
    with torch.no_grad():
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)  # [B, h, r, n]
        tokens = (weights * (gradient @ value.mT)).sum((1, 2)).clamp(min=0)
        grid = [side // step for side, step in zip(pixels.shape[2:], tower.patch, strict=True)]
        maps = _on_grid(tokens, tape.first, _patches(tower, pixels[:1]), grid)
        return maps, logits.softmax(-1).gather(1, labels[:, None])[:, 0]


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-odds [B] of the classes `labels` [B] against all others."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(-1)


class _Tape(TorchFunctionMode):
    """What goes into the first block, and query, key, value and output of the last block's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.segments: list[Tensor] = []
        self.attention: tuple[Tensor, Tensor, Tensor, Tensor]
        self._state = "before"

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._state == "last" and func is F.scaled_dot_product_attention:
            self.attention, self._state = (*args[:3], result), "after"
        return result

    def enter_first(self, module: nn.Module, inputs: Any, normed: Tensor) -> None:
        self.segments.append(normed.detach())

    def enter_last(self, module: nn.Module, inputs: Any, normed: Tensor) -> None:
        if self._state == "before":
            self._state = "last"

    @property
    def first(self) -> Tensor:
        """The first image's tokens [n, w] in front of the first block, normed, in the order of the keys."""
        n, rows = self.attention[1].shape[2], []
        for segment in self.segments:  # all of them, and then those that ask: again
            rows.append(segment.flatten(0, -3)[0])
            if sum(map(len, rows)) >= n:
                break
        return torch.cat(rows)


@contextmanager
def _recording(tower: VisionTower) -> Iterator[_Tape]:
    tape = _Tape()
    first, last = (tower.blocks[i].norms[0] for i in (0, -1))
    assert isinstance(first, nn.Module)  # noqa: S101 - for the type checker
    assert isinstance(last, nn.Module)  # noqa: S101 - for the type checker
    hooks = [first.register_forward_hook(tape.enter_first), last.register_forward_hook(tape.enter_last)]
    try:
        with tape:
            yield tape
    finally:
        for hook in hooks:
            hook.remove()


def _patches(tower: VisionTower, pixels: Tensor) -> Tensor:
    """The patches' tokens [P, w] of an image, as the first block takes them, normed."""
    return tower.blocks[0].norms[0](tower.start(tower.embed(pixels)))[0, 1:]


def _on_grid(tokens: Tensor, first: Tensor, patches: Tensor, grid: Sequence[int]) -> Tensor:
    """Numbers of tokens [B, n] in the grid of the patches [B, *grid]: prompts are left out, unseen patches are 0.

    A token is the patch that it is equal to in front of the first block; methods put theirs where they like.
    """
    distance = torch.cdist(patches, first, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, token = distance.min(dim=1)
    visible = nearest <= _SAME * patches.norm(dim=1)
    return (tokens[:, token] * visible).unflatten(1, list(grid))
