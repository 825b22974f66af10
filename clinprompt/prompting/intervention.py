"""CILMP's core: rows of a language model's states, bent by the image at hand and mapped to the text tower's width."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.prompting.initial import linear, linear_parameters


class StateRows:
    """A language model's states of each class, ragged, and which of them are intervened on.

    Args:
        states: [L_c, D] of each class; all D are equal.
        prefix, suffix: how many first and last rows of a class are intervened on; L_c is at least their sum.

    Attributes:
        count: L_c of each class [C]; `ragged` when they differ.
        first, last: the intervened rows [C, prefix, D] and [C, suffix, D].
        middle: the others [C, m, D], padded with zeros; `real` [C, m] tells which exist.
    """

    def __init__(self, states: list[Tensor], prefix: int, suffix: int) -> None:
        self.count = torch.tensor([len(rows) for rows in states], device=states[0].device)
        self.first = torch.stack([rows[:prefix] for rows in states])
        self.last = torch.stack([rows[len(rows) - suffix :] for rows in states])
        between = [rows[prefix : len(rows) - suffix] for rows in states]
        self.middle = nn.utils.rnn.pad_sequence(between, batch_first=True)
        indices = torch.arange(self.middle.shape[1], device=self.count.device)
        self.real = indices < (self.count - prefix - suffix)[:, None]
        self.ragged = len(set(self.count.tolist())) > 1

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers of the first [p], middle [m] and last rows [C, q] of a class."""
        p, m, q = (x.shape[1] for x in (self.first, self.middle, self.last))
        n = torch.arange(p + m + q, device=self.count.device)
        return n[:p], n[p : p + m], (self.count - q)[:, None] + n[:q]


class Intervention(nn.Module):
    """Conditional low-rank intervention (CILMP, arXiv 2511.12639) on rows h [C, n, D], given unit features v [B, e]:

        z = Dn v + dn                                   [B, r]
        g = Up z + up                                   [B, D]
        Φ(h, v) = h + R (W [h ; g * h] + b - Rᵀ h)      [B, C, n, D]

    Args:
        llm_width: D; `feature_width`: e; `rank`: r.
    """

    def __init__(self, llm_width: int, feature_width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.R = nn.Parameter(nn.init.orthogonal_(torch.empty(llm_width, rank), generator=generator))
        self.W, self.b = (nn.Parameter(t) for t in linear_parameters(2 * llm_width, rank, generator))
        self.image_down = linear(feature_width, rank, generator)
        self.image_up = linear(rank, llm_width, generator)

    def delta(self, h: Tensor, v: Tensor) -> Tensor:
        """s [B, C, n, r] with Φ(h, v) = h + R s, by low-rank algebra: nothing of width D varies over the images.

        W [h ; g * h] = W₁ h + (W₂ diag h) (Up z + up), of which only z depends on the image.
        """
        w1, w2 = self.W.chunk(2, dim=1)
        scaled = w2 * h[..., None, :]  # [C, n, r, D]
        static = h @ (w1.T - self.R) + scaled @ self.image_up.bias + self.b
        z = self.image_down(v)
        varying = torch.einsum("cnrs,bs->bcnr", scaled @ self.image_up.weight, z)
        return static + varying


class RowPrompts(nn.Module):
    """The prompts of one text layer: P = B (A Φ) for each of a class's rows, Φ = h where none intervenes.

    `prefix` and `suffix` intervene on the first and last rows; A [r, D] and B [d, r] (`lora_A`, `lora_B`) serve all.

    Args:
        dropout: probability on the entries of the intervened rows Φ, in training.
    """

    prefix: Intervention
    suffix: Intervention

    def __init__(
        self,
        llm_width: int,
        feature_width: int,
        text_width: int,
        rank: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.prefix = Intervention(llm_width, feature_width, rank, generator)
        self.suffix = Intervention(llm_width, feature_width, rank, generator)
        self.lora_A = nn.Parameter(linear_parameters(llm_width, rank, generator)[0])
        self.lora_B = nn.Parameter(linear_parameters(rank, text_width, generator)[0])
        self.dropout = dropout

    def forward(self, rows: StateRows, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts of the first [B, C, p, d], middle [1, C, m, d] and last rows [B, C, q, d] for unit features v."""
        middle = (rows.middle @ self.lora_A.T @ self.lora_B.T)[None]
        first, last = (self._bent(*part, v) for part in ((self.prefix, rows.first), (self.suffix, rows.last)))
        return first, middle, last

    def _bent(self, intervention: Intervention, h: Tensor, v: Tensor) -> Tensor:
        change = intervention.delta(h, v)
        if self.training and self.dropout > 0:
            dropped = F.dropout(h + change @ intervention.R.T, self.dropout)
            return dropped @ self.lora_A.T @ self.lora_B.T
        return (h @ self.lora_A.T + change @ (self.lora_A @ intervention.R).T) @ self.lora_B.T


@dataclass(frozen=True)
class BentRows:
    """What a model intervenes on, and the interventions of each text layer."""

    rows: StateRows
    layers: tuple[RowPrompts, ...]
