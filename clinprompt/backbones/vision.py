"""Frozen image towers that take tokens instead of pixels, so that prompts can stand among the patches."""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

import torch
from timm.layers import Format, resample_abs_pos_embed
from torch import Tensor

from clinprompt.backbones.blocks import Adapter, Block, ReadRows, open_block, run
from clinprompt.errors import BadParams

if TYPE_CHECKING:
    from clinprompt.backbones.m3d import VolumeTower

CLASS_TOKEN = ReadRows(0, slice(0, 1))


class VisionTower:
    """The image side of a model, from patch tokens to a projected feature.

    Serves open_clip's own vision transformer, timm's and M3D-CLIP's over volumes, read out at the class token.
    `encode([embed(pixels)])` equals the model's `encode_image(pixels)`.

    Args:
        model: an open_clip model or an `M3DClip` in evaluation state; it is not copied, and not registered as a
            sub-module.

    Raises:
        BadParams: the model's image tower is of a kind that prompts can't be put into.
    """

    def __init__(self, model: Any) -> None:
        visual = model.visual
        self._parts: _Parts
        if type(visual).__name__ == "VolumeTower":  # models of pictures are served without its module
            self._parts = _Volumes(visual)
        else:
            self._parts = _Timm(visual) if hasattr(visual, "trunk") else _OpenClip(visual)

    @property
    def blocks(self) -> list[Block]:
        """The transformer's blocks, in order."""
        return self._parts.blocks

    @property
    def width(self) -> int:
        """The width `w` of a token."""
        return self._parts.width

    @property
    def grid(self) -> tuple[int, ...]:
        """Patches along each side of the image: height and width; of a volume, depth before them."""
        return self._parts.grid

    @property
    def patch(self) -> tuple[int, ...]:
        """The sides of a patch in pixels, in the same order."""
        return self._parts.patch

    @property
    def patch_values(self) -> int:
        """How many numbers a patch has, over all channels."""
        return self._parts.channels * math.prod(self.patch)

    @property
    def patches(self) -> int:
        """How many patches an image of the tower's own size has."""
        return math.prod(self.grid)

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens [B, 1 + patches, w]: the class token, then the patches, with their positions.

        The sides of the images [B, 3, S, S] (of volumes: [B, 1, D, H, W]) may differ from the model's, by whole
        patches: the grid of positions is then resampled (bicubic; of volumes trilinear).
        """
        return self._parts.embed(pixels)

    def start(self, tokens: Tensor) -> Tensor:
        """What comes between positions and the first block: a norm in CLIP, nothing elsewhere."""
        return self._parts.start(tokens)

    def project(self, rows: Tensor) -> Tensor:
        """Features [..., e], not normalised, of the last block's outputs [..., w] for the class token."""
        return self._parts.project(self._parts.norm(rows))

    def norm(self, rows: Tensor) -> Tensor:
        """The norm behind the last block."""
        return self._parts.norm(rows)

    def project_normed(self, rows: Tensor) -> Tensor:
        """Features [..., e] of rows that went through `norm`."""
        return self._parts.project(rows)

    def encode(
        self,
        segments: list[Tensor],
        writes: Mapping[int, Mapping[int, Tensor]] | None = None,
        read: ReadRows = CLASS_TOKEN,
        adapter: Adapter | None = None,
        blocks: Sequence[Block] | None = None,
    ) -> Tensor:
        """Features [B, e], projected and not normalised, of the mean of the rows read: mostly the class token's.

        The arguments are those of `hidden`.
        """
        return self.project_normed(self.hidden(segments, writes, read, adapter, blocks).mean(1))

    def hidden(
        self,
        segments: list[Tensor],
        writes: Mapping[int, Mapping[int, Tensor]] | None = None,
        read: ReadRows | None = CLASS_TOKEN,
        adapter: Adapter | None = None,
        blocks: Sequence[Block] | None = None,
    ) -> Tensor:
        """The rows read [B, r, w] behind the last norm; without `read`, those of all segments in their order.

        Args:
            segments: tokens [B, n, w] or [1, n, w] each, in front of `start`; the class token is first in one of them.
            writes: by block and segment, tokens [B, n, w] or [n, w] that replace the segment's in front of that block.
            read: which rows the last block computes; None: all.
            adapter: what is added to the MLP's output in each block; sees tokens [B, 1, n, w].
            blocks: run these instead of the tower's own.
        """
        started = [self.start(x)[:, None] for x in segments]
        block_writes = {
            block: {segment: tokens.reshape(-1, 1, *tokens.shape[-2:]) for segment, tokens in tokens_by_segment.items()}
            for block, tokens_by_segment in (writes or {}).items()
        }
        rows = run(blocks or self.blocks, started, causal=False, writes=block_writes, read=read, adapter=adapter)
        return self.norm(torch.cat([part[:, 0] for part in rows], dim=1))


class _Parts(Protocol):
    """What differs between the kinds of towers."""

    blocks: list[Block]
    width: int
    channels: int
    grid: tuple[int, ...]
    patch: tuple[int, ...]

    def embed(self, pixels: Tensor) -> Tensor: ...

    def start(self, tokens: Tensor) -> Tensor: ...

    def norm(self, rows: Tensor) -> Tensor: ...

    def project(self, rows: Tensor) -> Tensor: ...


class _OpenClip:
    def __init__(self, visual: Any) -> None:
        if getattr(visual, "attn_pool", None) is not None or getattr(visual, "pool_type", None) != "tok":
            raise _unknown(visual)
        self.visual = visual
        self.blocks = [open_block(block) for block in visual.transformer.resblocks]
        self.width, self.channels = int(visual.class_embedding.shape[0]), int(visual.conv1.in_channels)
        self.grid, self.patch = _integers(visual.grid_size), _integers(visual.conv1.kernel_size)

    def embed(self, pixels: Tensor) -> Tensor:
        grid = self.visual.conv1(pixels)
        patches = grid.flatten(2).transpose(1, 2)
        first = self.visual.class_embedding.expand(len(patches), 1, -1)
        positions = resample_abs_pos_embed(
            self.visual.positional_embedding[None], list(grid.shape[2:]), list(self.grid)
        )
        tokens: Tensor = torch.cat([first, patches], dim=1) + positions
        return tokens

    def start(self, tokens: Tensor) -> Tensor:
        started: Tensor = self.visual.ln_pre(tokens)
        return started

    def norm(self, rows: Tensor) -> Tensor:
        normed: Tensor = self.visual.ln_post(rows)
        return normed

    def project(self, rows: Tensor) -> Tensor:
        return rows if self.visual.proj is None else rows @ self.visual.proj


class _Timm:
    def __init__(self, visual: Any) -> None:
        trunk = visual.trunk
        if getattr(trunk, "global_pool", None) != "token" or getattr(trunk, "num_prefix_tokens", None) != 1:
            raise _unknown(trunk)
        if hasattr(visual.head, "pool") or getattr(trunk, "attn_pool", None) is not None:
            raise _unknown(trunk)
        self.visual, self.trunk = visual, trunk
        self.blocks = [open_block(block) for block in trunk.blocks]
        self.width, self.channels = int(trunk.embed_dim), int(trunk.patch_embed.proj.in_channels)
        self.grid, self.patch = _integers(trunk.patch_embed.grid_size), _integers(trunk.patch_embed.patch_size)
        # Shallow copies that share the weights: for images of another size, timm resamples the positions itself.
        self._patches, self._positions = copy(trunk.patch_embed), copy(trunk)
        self._patches.strict_img_size, self._patches.flatten, self._patches.output_fmt = False, False, Format.NHWC
        self._positions.dynamic_img_size = True

    def embed(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self._positions._pos_embed(self._patches(pixels))
        return tokens

    def start(self, tokens: Tensor) -> Tensor:
        started: Tensor = self.trunk.norm_pre(tokens)
        return started

    def norm(self, rows: Tensor) -> Tensor:
        normed: Tensor = self.trunk.norm(rows)
        return normed

    def project(self, rows: Tensor) -> Tensor:
        projected: Tensor = self.visual.head(self.trunk.head(self.trunk.fc_norm(rows)))
        return projected


class _Volumes:
    def __init__(self, tower: "VolumeTower") -> None:
        self.encoder, self.projection = tower.encoder, tower.projection
        self.blocks = [open_block(block) for block in self.encoder.blocks]
        sizes = self.encoder.sizes
        self.width, self.channels = sizes.width, sizes.channels
        self.grid, self.patch = _integers(sizes.grid), _integers(sizes.patch)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.encoder.embed(pixels)

    def start(self, tokens: Tensor) -> Tensor:
        return tokens

    def norm(self, rows: Tensor) -> Tensor:
        normed: Tensor = self.encoder.norm(rows)
        return normed

    def project(self, rows: Tensor) -> Tensor:
        projected: Tensor = self.projection(rows)
        return projected


def _integers(sides: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(side) for side in sides)


def _unknown(tower: Any) -> BadParams:
    return BadParams(
        f"backbone: the image tower {type(tower).__name__} is not a vision transformer that is read out at its class "
        "token; methods that put prompts among the patches need one."
    )
