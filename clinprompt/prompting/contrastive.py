"""The contrastive loss of images and texts that belong together in pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor


def symmetric_contrast(scores: Tensor, labels: Tensor | None = None) -> Tensor:
    """The mean of both directions' cross-entropies of scores [B, B], in which image i and text i are a pair.

    Args:
        labels: classes [B]; where given, all texts of an image's class are its partners, in equal shares.
    """
    if labels is None:
        targets = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2
    same = (labels[:, None] == labels).to(scores.dtype)
    shares = same / same.sum(1, keepdim=True)  # the same for both directions: `same` is symmetric
    return (F.cross_entropy(scores, shares) + F.cross_entropy(scores.T, shares)) / 2
