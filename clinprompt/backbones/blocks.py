"""Frozen transformer blocks, taken apart: prompts stand among the tokens, and only what is read later is computed.

A sequence is a list of segments, each a tensor [b, c, n, d]: n neighbouring tokens that vary over the images (b is B,
or 1 when they are the same for all) and over the classes (c is C, or 1). Keys and values are computed at a segment's
own shape and broadcast when they are attended to, so that what all images or classes share is computed once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.errors import BadParams

# What runs beside the MLP of a block: (index of the block, tokens [b, c, n, d] after the attention) -> what is added.
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
        beside = 0 if adapted is None else adapted(x)
        x = x + self.mlp(self.norms[1](x) if self.pre_norm else x) + beside
        return x if self.pre_norm else self.norms[1](x)

    def _normed(self, x: Tensor) -> Tensor:
        return self.norms[0](x) if self.pre_norm else x


def open_block(module: Any) -> Block:
    """A block of open_clip's, timm's or Hugging Face's BERT transformer, taken apart.

    Raises:
        BadParams: it is built otherwise, so that it can't be.
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
    if kind == "BertLayer":
        own, after = module.attention.self, module.attention.output
        key_value = tuple(torch.cat([getattr(own.key, part), getattr(own.value, part)]) for part in ("weight", "bias"))
        return Block(
            heads=own.num_attention_heads,
            pre_norm=False,
            norms=(after.LayerNorm, module.output.LayerNorm),
            query=(own.query.weight, own.query.bias),
            key_value=(key_value[0], key_value[1]),
            out=after.dense,
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
    """The rows of a segment that are read at the end: the same for all classes, or one for each.

    `at`: a slice, or row numbers [C].
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
        """The numbers of the rows, [1, r] or [C, 1]."""
        everything = torch.arange(n, device=device)
        return everything[self.at][None] if isinstance(self.at, slice) else self.at[:, None]


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
    """Send segments through blocks.

    Args:
        segments: [b, c, n, d] each, b in {1, B} and c in {1, C}, in the order of the sequence.
        causal: each token attends to itself and to those before it; else to all.
        writes: by block and segment, the tokens that replace the segment's in front of that block. What the block
            before would have given for them is not computed; behind the last block, they only say what isn't.
        real: by segment, which of its tokens exist, bool [c, n], where not all do; the others are never attended to.
        read: what is wanted of the last block; without it, all segments are.
        adapter: what is added to the MLP's output in each block.

    Returns:
        With `read`, one tensor with its rows [b, c, r, d]; else the segments' outputs.
    """
    writes = writes or {}
    found = list(segments)
    for index, block in enumerate(blocks):
        for place, tokens in writes.get(index, {}).items():
            found[place] = tokens
        keys_values = [block.keys_values(x) for x in found]
        beside = None if adapter is None else _bind(adapter, index)
        last = index == len(blocks) - 1
        if last and read is not None:
            rows = read.numbers(found[read.segment].shape[2], found[0].device)
            wanted = read.take(found[read.segment])
            return [_attend(block, wanted, rows, read.segment, keys_values, causal, real or {}, beside)]
        rewritten = writes.get(index + 1, {})
        found = [
            x if place in rewritten else _attend(block, x, None, place, keys_values, causal, real or {}, beside)
            for place, x in enumerate(found)
        ]
    return found


def _bind(adapter: Adapter, index: int) -> Module:
    return lambda x: adapter(index, x)


def _attend(
    block: Block,
    x: Tensor,
    rows: Tensor | None,
    place: int,
    keys_values: Sequence[tuple[Tensor, Tensor]],
    causal: bool,
    real: Mapping[int, Tensor],
    beside: Module | None,
) -> Tensor:
    """The block's output for some tokens of segment `place`: all of them, or those with the numbers `rows`."""
    seen = keys_values[: place + 1] if causal else keys_values
    q = block.queries(x)
    b = max(q.shape[0], *(k.shape[0] for k, _ in seen))
    c = max(q.shape[1], *(k.shape[1] for k, _ in seen))
    mask = _mask([k.shape[2] for k, _ in seen], place, rows, x.shape[2], causal, real, x.device)
    if mask is not None:  # [c', r, keys] -> [b * c, 1, r, keys]
        c = max(c, len(mask))
        mask = mask.expand(c, -1, -1).repeat(b, 1, 1)[:, None]
    k, v = (torch.cat([one[i].expand(b, c, -1, -1) for one in seen], dim=2) for i in (0, 1))
    attended = F.scaled_dot_product_attention(
        _heads(q.expand(b, c, -1, -1), block.heads), _heads(k, block.heads), _heads(v, block.heads), attn_mask=mask
    )
    attended = attended.transpose(1, 2).reshape(b, c, q.shape[2], q.shape[3])
    return block.finish(x, attended, beside)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[b, c, n, d] -> [b * c, heads, n, d / heads]."""
    b, c, n, d = x.shape
    return x.reshape(b * c, n, heads, d // heads).transpose(1, 2)


def _mask(
    sizes: list[int],
    place: int,
    rows: Tensor | None,
    n: int,
    causal: bool,
    real: Mapping[int, Tensor],
    device: torch.device,
) -> Tensor | None:
    """Who may be attended to, bool [c, r, keys]; None when everyone may."""
    hidden = [other for other in range(len(sizes)) if other in real]
    if (not causal and not hidden) or (causal and not hidden and n == 1 and rows is None):
        return None
    asking = torch.arange(n, device=device)[None] if rows is None else rows
    parts = []
    for other, size in enumerate(sizes):
        allowed = torch.ones(1, 1, size, dtype=torch.bool, device=device)
        if other in real:
            allowed = real[other][:, None]
        if causal and other == place:
            allowed = allowed & (torch.arange(size, device=device) <= asking[:, :, None])
        parts.append(allowed)
    c = max(len(part) for part in (*parts, asking))
    return torch.cat([part.expand(c, asking.shape[1], -1) for part in parts], dim=2)
