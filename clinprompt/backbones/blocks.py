"""Run frozen transformer blocks over sequences that hold prompts, computing only the tokens that are read later.

A sequence is a list of segments, each a tensor [b, c, n, d]: n neighbouring tokens that vary over the images (b is B,
or 1 where all images share them) and over the classes (c is C, or 1). Keys and values are computed at a segment's own
shape and broadcast when they are attended to, so that tokens shared by all images or classes are computed once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.errors import BadParams

# A parallel adapter: (index of the block, tokens [b, c, n, d] after its attention) -> what is added to the MLP output.
Adapter = Callable[[int, Tensor], Tensor]
Module = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Block:
    """One block: attention and an MLP, each with a residual, normalised before (CLIP, ViT) or after them (BERT)."""

    heads: int
    pre_norm: bool
    norms: tuple[Module, Module]
    query: tuple[Tensor, Tensor | None]  # weight [d, d] and bias [d]
    key_value: tuple[Tensor, Tensor | None]  # weight [2d, d] and bias [2d]
    out: Module
    mlp: Module

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [b, c, n, d] of tokens [b, c, n, d]."""
        k, v = F.linear(self._normed(x), *self.key_value).chunk(2, dim=-1)
        return k, v

    def queries(self, x: Tensor) -> Tensor:
        """Queries [b, c, n, d] of tokens [b, c, n, d]."""
        return F.linear(self._normed(x), *self.query)

    def finish(self, x: Tensor, attended: Tensor, adapted: Module | None) -> Tensor:
        """The block's output for tokens `x` whose queries have attended [b, c, n, d]."""
        x = x + self.out(attended)
        if not self.pre_norm:
            x = self.norms[0](x)
        adapter_output = 0 if adapted is None else adapted(x)
        x = x + self.mlp(self.norms[1](x) if self.pre_norm else x) + adapter_output
        return x if self.pre_norm else self.norms[1](x)

    def _normed(self, x: Tensor) -> Tensor:
        return self.norms[0](x) if self.pre_norm else x


def open_block(module: Any) -> Block:
    """The parts of a block of open_clip's, timm's, M3D-CLIP's or Hugging Face's BERT transformer.

    Raises:
        BadParams: the block has another structure.
    """
    kind = type(module).__name__
    if kind == "ResidualAttentionBlock" and not hasattr(module, "ln_1_kv"):
        attn, d = module.attn, module.attn.embed_dim
        return _pre_norm(
            attn.num_heads, (module.ln_1, module.ln_2), (attn.in_proj_weight, attn.in_proj_bias), d,
            (attn.out_proj, module.ls_1), (module.mlp, module.ls_2),
        )  # fmt: skip
    if kind == "Block" and _plain(getattr(module, "attn", None)):
        attn, d = module.attn, module.attn.num_heads * module.attn.head_dim
        return _pre_norm(
            attn.num_heads, (module.norm1, module.norm2), (attn.qkv.weight, attn.qkv.bias), d,
            (attn.proj, module.ls1), (module.mlp, module.ls2),
        )  # fmt: skip
    if kind == "VolumeBlock":
        attn, d = module.attn, module.attn.out_proj.in_features
        same = nn.Identity()
        return _pre_norm(
            attn.heads, (module.norm1, module.norm2), (attn.qkv.weight, None), d, (attn.out_proj, same),
            (module.mlp, same),
        )  # fmt: skip
    if kind == "BertLayer":
        attention, attention_output = module.attention.self, module.attention.output
        key_value = tuple(
            torch.cat([getattr(attention.key, name), getattr(attention.value, name)]) for name in ("weight", "bias")
        )
        return Block(
            heads=attention.num_attention_heads,
            pre_norm=False,
            norms=(attention_output.LayerNorm, module.output.LayerNorm),
            query=(attention.query.weight, attention.query.bias),
            key_value=(key_value[0], key_value[1]),
            out=attention_output.dense,
            mlp=lambda x: module.output.dense(module.intermediate(x)),
        )
    raise BadParams(f"backbone: prompts can't be put into this model's blocks ({kind}); choose a plain ViT or BERT.")


def _pre_norm(
    heads: int,
    norms: tuple[Module, Module],
    packed: tuple[Tensor, Tensor | None],
    d: int,
    out: tuple[Module, Module],
    mlp: tuple[Module, Module],
) -> Block:
    weight, bias = packed
    return Block(
        heads=heads,
        pre_norm=True,
        norms=norms,
        query=(weight[:d], None if bias is None else bias[:d]),
        key_value=(weight[d:], None if bias is None else bias[d:]),
        out=lambda x: out[1](out[0](x)),
        mlp=lambda x: mlp[1](mlp[0](x)),
    )


def _plain(attn: Any) -> bool:
    if type(attn).__name__ != "Attention":
        return False
    extras = (attn.q_norm, attn.k_norm, attn.norm)
    return all(isinstance(extra, nn.Identity) for extra in extras) and attn.gate is None


@dataclass(frozen=True)
class ReadRows:
    """The rows of a segment that are read from the last block.

    Attributes:
        segment: the segment's number.
        at: a slice, the same rows for all classes; or row numbers [C], one for each class.
    """

    segment: int
    at: slice | Tensor

    def take(self, x: Tensor) -> Tensor:
        """The rows [b, c, r, d] of tokens [b, c, n, d]."""
        if isinstance(self.at, slice):
            return x[:, :, self.at]
        x = x.expand(-1, len(self.at), -1, -1)
        return x.gather(2, self.at[None, :, None, None].expand(len(x), -1, 1, x.shape[-1]))

    def numbers(self, n: int, device: torch.device) -> Tensor:
        """Row numbers [1, r] or [C, 1]."""
        positions = torch.arange(n, device=device)
        return positions[self.at][None] if isinstance(self.at, slice) else self.at[:, None]


def run(
    blocks: Sequence[Block],
    segments: Sequence[Tensor],
    *,
    causal: bool,
    writes: Mapping[int, Mapping[int, Tensor]] | None = None,
    real: Mapping[int, Tensor] | None = None,
    read: ReadRows | None = None,
    adapter: Adapter | None = None,
) -> list[Tensor]:
    """Run blocks on a sequence.

    Args:
        segments: [b, c, n, d] each, b in {1, B} and c in {1, C}, in the order of the sequence.
        causal: each token attends to itself and to those before it; else to all.
        writes: by block and segment, the tokens that replace the segment's before that block; the block before does
            not compute them. With the number of blocks as the key, only that the last block need not compute them.
        real: by segment, a mask bool [c, n] of its tokens that are no padding; padding is never attended to.
        read: the rows to compute in the last block; None: all segments.
        adapter: what is added to the MLP's output in each block.

    Returns:
        With `read`, one tensor with its rows [b, c, r, d]; else the segments' outputs.
    """
    writes = writes or {}
    outputs = list(segments)
    for index, block in enumerate(blocks):
        for segment, tokens in writes.get(index, {}).items():
            outputs[segment] = tokens
        keys_values = [block.keys_values(x) for x in outputs]
        block_adapter = None if adapter is None else _bind(adapter, index)
        last = index == len(blocks) - 1
        if last and read is not None:
            rows = read.numbers(outputs[read.segment].shape[2], outputs[0].device)
            queries = read.take(outputs[read.segment])
            return [_attend(block, queries, rows, read.segment, keys_values, causal, real or {}, block_adapter)]
        rewritten = writes.get(index + 1, {})
        outputs = [
            x
            if segment in rewritten
            else _attend(block, x, None, segment, keys_values, causal, real or {}, block_adapter)
            for segment, x in enumerate(outputs)
        ]
    return outputs


def _bind(adapter: Adapter, index: int) -> Module:
    return lambda x: adapter(index, x)


def _attend(
    block: Block,
    x: Tensor,
    rows: Tensor | None,
    segment: int,
    keys_values: Sequence[tuple[Tensor, Tensor]],
    causal: bool,
    real: Mapping[int, Tensor],
    adapter: Module | None,
) -> Tensor:
    """The block's output for some tokens of a segment: all of them, or those with the numbers `rows`."""
    visible = keys_values[: segment + 1] if causal else keys_values
    q = block.queries(x)
    b = max(q.shape[0], *(k.shape[0] for k, _ in visible))
    c = max(q.shape[1], *(k.shape[1] for k, _ in visible))
    mask = _mask([k.shape[2] for k, _ in visible], segment, rows, x.shape[2], causal, real, x.device)
    if mask is not None:  # [c', r, keys] -> [b * c, 1, r, keys]
        c = max(c, len(mask))
        mask = mask.expand(c, -1, -1).repeat(b, 1, 1)[:, None]
    k, v = (torch.cat([key_value[i].expand(b, c, -1, -1) for key_value in visible], dim=2) for i in (0, 1))
    attended = F.scaled_dot_product_attention(
        _heads(q.expand(b, c, -1, -1), block.heads), _heads(k, block.heads), _heads(v, block.heads), attn_mask=mask
    )
    attended = attended.transpose(1, 2).reshape(b, c, q.shape[2], q.shape[3])
    return block.finish(x, attended, adapter)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[b, c, n, d] -> [b * c, heads, n, d / heads]."""
    b, c, n, d = x.shape
    return x.reshape(b * c, n, heads, d // heads).transpose(1, 2)


def _mask(
    sizes: list[int],
    segment: int,
    rows: Tensor | None,
    n: int,
    causal: bool,
    real: Mapping[int, Tensor],
    device: torch.device,
) -> Tensor | None:
    """Which keys each query may attend to, bool [c, r, keys]; None: all of them."""
    hidden = [key_segment for key_segment in range(len(sizes)) if key_segment in real]
    if (not causal and not hidden) or (causal and not hidden and n == 1 and rows is None):
        return None
    query_positions = torch.arange(n, device=device)[None] if rows is None else rows
    masks = []
    for key_segment, size in enumerate(sizes):
        allowed = torch.ones(1, 1, size, dtype=torch.bool, device=device)
        if key_segment in real:
            allowed = real[key_segment][:, None]
        if causal and key_segment == segment:
            allowed = allowed & (torch.arange(size, device=device) <= query_positions[:, :, None])
        masks.append(allowed)
    c = max(len(mask) for mask in (*masks, query_positions))
    return torch.cat([mask.expand(c, query_positions.shape[1], -1) for mask in masks], dim=2)
