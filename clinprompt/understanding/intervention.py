"""How far a model bends each row of the language model's states, by text layer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clinprompt.prompting.intervention import BentRows, Intervention


@dataclass(frozen=True)
class Change:
    """How far rows are bent, relative to their length, mean over images and classes; a row counts from its class's end
    where it is one of the last.

    Attributes:
        total: ‖Φ - h‖ / ‖h‖, [layers, prefix + suffix].
        varying: the root mean square over the images of ‖Φ - mean Φ‖ / ‖h‖, likewise: what depends on the image.
        prefix: how many of the rows are a class's first; the others are its last.
        rows: how many rows the classes have, fewest and most.
    """

    total: np.ndarray
    varying: np.ndarray
    prefix: int
    rows: tuple[int, int]


@torch.no_grad()
def change(intervened: BentRows, images: Tensor) -> Change:
    """The change over unit features of images [B, e], as the tuned model computes them."""
    rows = intervened.rows
    changes = [
        [_relative(part, h, images) for part, h in ((layer.prefix, rows.first), (layer.suffix, rows.last))]
        for layer in intervened.layers
    ]
    total, varying = (np.array([np.concatenate([end[i] for end in layer]) for layer in changes]) for i in (0, 1))
    counts = rows.count.tolist()
    return Change(total, varying, rows.first.shape[1], (min(counts), max(counts)))


def _relative(intervention: Intervention, h: Tensor, v: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both numbers [n] of rows h [C, n, D]. ‖R s‖² = sᵀ (RᵀR) s: nothing of width D varies over the images."""
    s = intervention.delta(h, v).double()  # [B, C, n, r]
    gram = intervention.R.double().T @ intervention.R.double()
    length = h.double().norm(dim=-1)  # [C, n]
    total = _norm_squared(s, gram).sqrt().mean(0) / length
    varying = _norm_squared(s - s.mean(0), gram).mean(0).sqrt() / length
    return total.mean(0).cpu().numpy(), varying.mean(0).cpu().numpy()


def _norm_squared(s: Tensor, gram: Tensor) -> Tensor:
    return torch.einsum("bcnr,rs,bcns->bcn", s, gram, s).clamp(min=0)
