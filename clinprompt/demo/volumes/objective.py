"""What `demo-m3d` is trained for: to see where structures are large or small, to tell sizes, and to know its caption.

Losses that need heads of their own throw them away: the saved model is an M3D-CLIP and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.backbones.m3d import M3DClip, VolumeEncoder
from clinprompt.demo.volumes.anatomy import STRUCTURES
from clinprompt.demo.volumes.captions import PARTS, Scene

FEATURE_SCALE = 8.0  # unit features have entries of about 0.1
_SCANNER = 3
_VARIES = 0.3  # of the mean deviation of a structure's share: patches that vary by less tell little of it
_WHITENING = 0.25  # power of a component's variance that is taken out; at 0.5 noise is as loud as anatomy


@dataclass(frozen=True)
class Places:
    """Where structures lie, as targets for patch tokens.

    Attributes:
        shares: of each patch that each of `STRUCTURES` has [N scenes, patches, 5].
        mean: over scenes [patches, 5].
        spread: of each structure [5].
        telling: the patches whose shares vary [k].
        others: the rest.
    """

    shares: Tensor
    mean: Tensor
    spread: Tensor
    telling: Tensor
    others: Tensor

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> "Places":
        """The targets of some scenes."""
        shares = torch.from_numpy(np.stack([scene.places for scene in scenes]))
        mean = shares.mean(0)
        spread = (shares - mean).square().mean((0, 1)).sqrt().clamp(min=1e-6)
        varies = ((shares - mean) / spread).square().mean((0, 2)).sqrt() > _VARIES
        return cls(shares, mean, spread, torch.nonzero(varies)[:, 0], torch.nonzero(~varies)[:, 0])

    def deviations(self, shares: Tensor) -> Tensor:
        """Shares [B, patches, 5] less their mean, in parts of the structures' spread."""
        return (shares - self.mean) / self.spread

    def some(self, others: int, rng: np.random.Generator) -> Tensor:
        """All telling patches, and so many others."""
        return torch.cat([self.telling, self.others[torch.from_numpy(rng.permutation(len(self.others))[:others])]])


class Objective(nn.Module):
    """The losses.

    The logit scale is trained as its logarithm, as CLIP's is; the saved model has the number itself, as M3D-CLIP has.
    """

    def __init__(self, model: M3DClip) -> None:
        super().__init__()
        self._model = [model]  # in a list: its parameters are not this module's
        width = model.mm_vision_proj.out_features
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.places = nn.Linear(width, len(STRUCTURES))
        self.sizes, self.scanner, self.told = (nn.Linear(width, n) for n in (len(PARTS), _SCANNER, len(PARTS)))

    def seeing(
        self, voxels: Tensor, deviations: Tensor, facts: Tensor, patches: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """How well sizes, scanner and places are told, and the unit features [B, e].

        Args:
            voxels: normalised [B, 1, D, H, W].
            deviations: of the structures' shares [B, N, 5].
            facts: sizes of the parts, then of the scanner [B, 9].
            patches: those that the tower sees, as `Places.some` gives them; None: all.
        """
        model, encoder = self._model[0], self._model[0].vision_encoder
        with torch.autocast("cpu", enabled=False):  # differences from the mean are small, and half precision is coarse
            tokens = encoder.embed(voxels)
        if patches is not None:
            tokens, deviations = torch.cat([tokens[:, :1], tokens[:, 1 + patches]], dim=1), deviations[:, patches]
        for block in encoder.blocks:
            tokens = block(tokens)
        tokens = encoder.norm(tokens)
        features = F.normalize(model.mm_vision_proj(tokens[:, 0]).float(), dim=-1)
        sizes, scanner = facts[:, : len(PARTS)], facts[:, len(PARTS) :]
        told = F.mse_loss(self.sizes(features * FEATURE_SCALE).float(), sizes)
        by_scanner = F.mse_loss(self.scanner(features * FEATURE_SCALE).float(), scanner)
        where = F.mse_loss(self.places(tokens[:, 1:]).float(), deviations)
        return 3 * told + 0.3 * by_scanner + where, features

    def pairing(self, features: Tensor, ids: Tensor, sizes: Tensor, told: Tensor) -> Tensor:
        """InfoNCE with the captions, and how well their features tell the sizes that they speak of.

        Args:
            features: of the volumes, at unit length [B, e].
            ids: tokens of the captions [B, T].
            sizes: of the parts [B, 6].
            told: the parts that a caption tells of [B, 6].
        """
        text = F.normalize(self._model[0].encode_text(ids).float(), dim=-1)
        logits = self.log_scale.exp() * features @ text.T
        target = torch.arange(len(logits))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + F.mse_loss(self.told(text * FEATURE_SCALE).float()[told], sizes[told])


@torch.no_grad()
def start_at_differences(encoder: VolumeEncoder, voxels: Tensor) -> None:
    """Begin with tokens that tell how a patch differs from the same patch of other heads.

    The patch embedding takes the principal components of these differences, each divided by a power of its deviation;
    the positions take the mean away, and add a code of their own. From random weights, hundreds of steps go into seeing
    anything but how large a head is.

    Args:
        voxels: of some scenes, normalised [n, 1, D, H, W].
    """
    embedding = encoder.patch_embedding
    cut, linear = embedding.patch_embeddings
    assert isinstance(linear, nn.Linear)  # noqa: S101 - as M3D-CLIP has it
    patches = torch.cat([cut(part) for part in voxels.split(100)])
    mean = patches.mean(0)
    patches = (patches - mean).flatten(0, 1)
    variance, components = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
    width = linear.out_features
    variance, components = variance.flip(0)[:width].clamp(min=1e-9), components.flip(1)[:, :width]
    weight = components / variance**_WHITENING
    weight *= (width / (variance ** (1 - 2 * _WHITENING)).sum()).sqrt()  # a token's entries have deviation 1 on average
    linear.weight.copy_(weight.T)
    linear.bias.zero_()
    code = torch.randn(embedding.position_embeddings.shape)
    embedding.position_embeddings.copy_(code - mean @ linear.weight.T)
