"""Texts with learned tokens in front, all of whose tokens are read, and attention between them and an image's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.backbones.blocks import run

if TYPE_CHECKING:
    from clinprompt.backbones.text import TextTower

_IMAGE_SHARE = 0.01  # of what an image's tokens take from the text, as released


@dataclass(frozen=True)
class TextTokens:
    """Tokens [N, m + T, e] of texts, of unit length each, the learned ones first; which are no padding, bool."""

    tokens: Tensor
    real: Tensor

    def mean(self) -> Tensor:
        """The unit mean [N, e] of the real tokens."""
        real = self.real[:, :, None].to(self.tokens.dtype)
        return F.normalize((real * self.tokens).sum(1) / real.sum(1), dim=-1)

    def repeated(self, images: int) -> "TextTokens":
        """All texts for the first image, then all for the next, …"""
        return TextTokens(self.tokens.repeat(images, 1, 1), self.real.repeat(images, 1))


def prompted_hidden(tower: "TextTower", prompts: Tensor, ids: Tensor, *, at_input: bool) -> tuple[Tensor, Tensor]:
    """The tower's last hidden states [N, m + T, d] of token ids [N, T], prompts [1, m, d] in front; which are real.

    Args:
        at_input: the prompts go through the tower, without positions; else they stand in front of what it gives.
    """
    real = torch.arange(ids.shape[1], device=ids.device) < tower.real_length(ids)[:, None]
    words = tower.place(tower.embed(ids), torch.arange(ids.shape[1], device=ids.device))[None]
    if at_input:
        outputs = run(tower.blocks, [prompts[None], words], causal=tower.causal, real={1: real})
        hidden = tower.norm(torch.cat([part[0].expand(len(ids), -1, -1) for part in outputs], dim=1))
    else:
        [plain] = run(tower.blocks, [words], causal=tower.causal, real={0: real})
        hidden = torch.cat([prompts.expand(len(ids), -1, -1), tower.norm(plain[0])], dim=1)
    return hidden, F.pad(real, (prompts.shape[1], 0), value=True)


def cross_read(attention: nn.MultiheadAttention, images: Tensor, texts: TextTokens) -> tuple[Tensor, TextTokens]:
    """What images' first tokens [N, e] and texts become when each reads the other's tokens as they were before.

    Args:
        images: tokens [N, n, e].
        texts: one for each image.
    """
    first = images[:, :1]
    read, _ = attention(first, texts.tokens, texts.tokens, key_padding_mask=~texts.real, need_weights=False)
    told, _ = attention(texts.tokens, images, images, need_weights=False)
    return (first + _IMAGE_SHARE * read)[:, 0], TextTokens(texts.tokens + told, texts.real)
