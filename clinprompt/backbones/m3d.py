"""M3D-CLIP (Bai et al., arXiv 2404.00578) in plain torch: a ViT over volumes and a BERT, in one space.

Modules have the names of the published state dict, so that its weights load strictly.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Grid = tuple[int, int, int]  # along depth, height and width


@dataclass(frozen=True)
class M3DSizes:
    """The sizes of the tower for volumes; the defaults are the published ones.

    Attributes:
        channels: of a volume.
        volume, patch: depth, height and width in voxels.
        width, mlp, layers, heads: of the transformer; `width` is that of the joint space, too.
    """

    channels: int = 1
    volume: Grid = (32, 256, 256)
    patch: Grid = (4, 16, 16)
    width: int = 768
    mlp: int = 3072
    layers: int = 12
    heads: int = 12

    @property
    def grid(self) -> Grid:
        """How many patches lie along each axis."""
        depth, height, width = (side // step for side, step in zip(self.volume, self.patch, strict=True))
        return depth, height, width


class M3DClip(nn.Module):
    """Both towers. Image features are read at the class token, text features at the first token.

    Args:
        text: a Hugging Face BertModel; its pooler is not used.
    """

    def __init__(self, sizes: M3DSizes, text: Any) -> None:
        super().__init__()
        self.vision_encoder = VolumeEncoder(sizes)
        self.language_encoder = text
        self.mm_vision_proj = nn.Linear(sizes.width, sizes.width)
        self.mm_language_proj = nn.Linear(text.config.hidden_size, sizes.width)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())  # multiplied as it is, not exponentiated

    @property
    def visual(self) -> "VolumeTower":
        """The image tower with its projection, under open_clip's name."""
        return VolumeTower(self.vision_encoder, self.mm_vision_proj)

    @property
    def text(self) -> SimpleNamespace:
        """The text tower in the parts that open_clip's wrapper of Hugging Face's encoders has."""
        from open_clip.hf_model import ClsLastHiddenStatePooler

        return SimpleNamespace(
            transformer=self.language_encoder,
            config=self.language_encoder.config,
            pooler=ClsLastHiddenStatePooler(),
            proj=self.mm_language_proj,
        )

    def encode_image(self, volumes: Tensor) -> Tensor:
        """Features [B, e], projected and not normalised, of volumes [B, channels, D, H, W]."""
        features: Tensor = self.visual(volumes)
        return features

    def encode_text(self, ids: Tensor) -> Tensor:
        """Features [N, e], projected and not normalised, of token ids [N, T]."""
        real = (ids != self.language_encoder.config.pad_token_id).long()
        hidden = self.language_encoder(input_ids=ids, attention_mask=real).last_hidden_state
        features: Tensor = self.mm_language_proj(hidden[:, 0])
        return features


class VolumeTower(nn.Module):
    """The ViT and the projection behind it: features [B, e], not normalised, of volumes [B, channels, D, H, W]."""

    def __init__(self, encoder: "VolumeEncoder", projection: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.projection = encoder, projection

    def forward(self, volumes: Tensor) -> Tensor:
        features: Tensor = self.projection(self.encoder(volumes)[:, 0])
        return features


class VolumeEncoder(nn.Module):
    """The ViT: patches in the order depth, height, width, behind a class token that has no position."""

    def __init__(self, sizes: M3DSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embedding = _PatchEmbedding(sizes)
        self.blocks = nn.ModuleList(VolumeBlock(sizes) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))

    def embed(self, volumes: Tensor) -> Tensor:
        """Tokens [B, 1 + N, w]: the class token, then the patches with their positions.

        Other sizes than the tower's own are read by whole patches; the positions are then interpolated (trilinear).
        """
        patches, grid = self.patch_embedding.patches(volumes)
        placed = patches + self.patch_embedding.positions(grid)
        return torch.cat([self.cls_token.expand(len(placed), -1, -1), placed], dim=1)

    def forward(self, volumes: Tensor) -> Tensor:
        """All tokens [B, 1 + N, w] behind the last norm."""
        x = self.embed(volumes)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


class _PatchEmbedding(nn.Module):
    def __init__(self, sizes: M3DSizes) -> None:
        super().__init__()
        self.sizes = sizes
        n, voxels = sizes.grid[0] * sizes.grid[1] * sizes.grid[2], sizes.patch[0] * sizes.patch[1] * sizes.patch[2]
        linear = nn.Linear(voxels * sizes.channels, sizes.width)
        self.patch_embeddings = nn.Sequential(_Patches(sizes.patch), linear)
        self.position_embeddings = nn.Parameter(torch.empty(1, n, sizes.width))
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.trunc_normal_(self.position_embeddings, std=0.02)

    def patches(self, volumes: Tensor) -> tuple[Tensor, Grid]:
        depth, height, width = (side // step for side, step in zip(volumes.shape[2:], self.sizes.patch, strict=True))
        return self.patch_embeddings(volumes), (depth, height, width)

    def positions(self, grid: Grid) -> Tensor:
        """The table [1, N, w] for a grid of patches."""
        if grid == self.sizes.grid:
            return self.position_embeddings
        table = self.position_embeddings.reshape(1, *self.sizes.grid, -1).permute(0, 4, 1, 2, 3)
        return F.interpolate(table, size=grid, mode="trilinear", align_corners=False).flatten(2).transpose(1, 2)


class _Patches(nn.Module):
    """Cut volumes [B, c, D, H, W] into patches [B, N, voxels * c], the channel fastest."""

    def __init__(self, patch: Grid) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, volumes: Tensor) -> Tensor:
        for axis, step in enumerate(self.patch):
            volumes = volumes.unfold(2 + axis, step, step)  # [B, c, d, h, w, and the sides of a patch]
        return volumes.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4).flatten(1, 3)


class VolumeBlock(nn.Module):
    """A pre-norm block; queries, keys and values come from one matrix without bias."""

    def __init__(self, sizes: M3DSizes) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.attn = _Attention(sizes.width, sizes.heads)
        self.mlp = _Mlp(sizes.width, sizes.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended: Tensor = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, w))
        return attended


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(F.gelu(self.linear1(x)))
        return out
