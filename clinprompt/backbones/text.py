"""Frozen text towers that take embeddings instead of ids, so that learned vectors can stand among the words."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clinprompt.backbones.blocks import Block, ReadRows, open_block, run
from clinprompt.errors import BadParams

_FIRST_TOKEN, _MEAN = ("ClsPooler", "ClsLastHiddenStatePooler"), "MeanPooler"


class TextTower:
    """The text side of an open_clip model, from token embeddings to a projected feature.

    Serves `CLIP` and `CustomTextCLIP` with open_clip's own transformer or with a Hugging Face encoder. Encoding
    `embed(ids)` equals the model's `encode_text(ids)`; the padding behind the longest prompt of a batch is not
    computed where it can't change the result.

    Args:
        model: an open_clip model, in evaluation state. It is not copied, and not registered as a sub-module.

    Raises:
        BadParams: the model's text tower is of a kind that is not known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parts = _parts(model)

    @property
    def width(self) -> int:
        """The width `d` of a token embedding."""
        return int(self._parts.embedding.weight.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the tower's weights lie."""
        return self._parts.embedding.weight.device

    @property
    def croppable(self) -> bool:
        """Whether positions behind the end of a prompt have no influence (a causal or a padding mask)."""
        return self._parts.croppable

    @property
    def context(self) -> int:
        """How many positions the tower has."""
        return self._parts.context

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings [N, T, d] of ids [N, T], without positions."""
        return self._parts.embedding(ids)

    def real_length(self, ids: Tensor) -> Tensor:
        """How many leading positions of each row of ids [N, T] can influence its feature: [N]."""
        if not self.croppable:
            return torch.full((len(ids),), ids.shape[1], device=ids.device)
        return self._parts.length(ids)

    def encode(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Features [N, e], projected and not normalised.

        Args:
            embeddings: what the tower reads, [N, T, d]; positions are added here.
            ids: [N, T]; they say where a prompt ends and what is padding, not what is read.
        """
        length = int(self.real_length(ids).max())
        return self._parts.encode(embeddings[:, :length], ids[:, :length])

    @property
    def causal(self) -> bool:
        """Whether a token attends only to itself and to those before it."""
        return self._parts.causal

    @property
    def blocks(self) -> list[Block]:
        """The transformer's blocks, in order.

        Raises:
            BadParams: they are of a kind that can't be taken apart.
        """
        return self._parts.blocks()

    def place(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Embeddings [..., n, d] at positions [n] or [C, n] of the sequence, ready for the first block."""
        return self._parts.place(embeddings, positions)

    def encode_segments(
        self,
        segments: Sequence[Tensor],
        ends: Tensor,
        *,
        writes: Mapping[int, Mapping[int, Tensor]] | None = None,
        real: Mapping[int, Tensor] | None = None,
        blocks: Sequence[Block] | None = None,
    ) -> Tensor:
        """Features [b, C, e], not normalised, of texts given as segments [b, c, n, d] that were placed.

        Args:
            ends: the row [C] of the last segment at which each class's text ends; what is behind it is padding.
            writes: as in `blocks.run`.
            real: which tokens of the other segments are no padding, as in `blocks.run`.
            blocks: run these instead of the tower's own.

        Raises:
            BadParams: the tower's blocks are of a kind that can't be taken apart.
        """
        run_blocks, last, causal = blocks or self.blocks, len(segments) - 1, self.causal
        seen = dict(real or {})
        if not causal:
            seen[last] = torch.arange(segments[last].shape[2], device=ends.device) <= ends[:, None]
        if self._parts.means:
            return self.project(_mean(run(run_blocks, segments, causal=causal, writes=writes, real=seen), seen))
        read = ReadRows(last, ends) if causal else ReadRows(0, slice(0, 1))
        [rows] = run(run_blocks, segments, causal=causal, writes=writes, real=seen, read=read)
        return self.project(rows[:, :, 0])

    def project(self, rows: Tensor) -> Tensor:
        """Features [..., e], not normalised, of the last block's outputs [..., d], of one token or of their mean."""
        return self._parts.project(self._parts.norm(rows))

    def norm(self, rows: Tensor) -> Tensor:
        """The norm behind the last block; nothing in BERT, whose blocks end with one."""
        return self._parts.norm(rows)

    def project_normed(self, rows: Tensor) -> Tensor:
        """Features [..., e] of rows that went through `norm`."""
        return self._parts.project(rows)

    def encode_ids(self, ids: Tensor) -> Tensor:
        """Features [N, e] of ids [N, T], as the model's own `encode_text`, not normalised."""
        return self.encode(self.embed(ids), ids)


class _Parts(Protocol):
    """What differs between the kinds of towers."""

    embedding: nn.Embedding
    croppable: bool
    causal: bool
    means: bool  # the mean of a text's tokens is read out, not one of them
    context: int

    def length(self, ids: Tensor) -> Tensor: ...

    def encode(self, x: Tensor, ids: Tensor) -> Tensor: ...

    def blocks(self) -> list[Block]: ...

    def place(self, x: Tensor, positions: Tensor) -> Tensor: ...

    def norm(self, rows: Tensor) -> Tensor: ...

    def project(self, rows: Tensor) -> Tensor: ...


def _mean(outputs: Sequence[Tensor], real: Mapping[int, Tensor]) -> Tensor:
    """The mean [b, c, d] over the tokens of all segments [b, c, n, d] that are no padding."""
    parts = []
    for segment, x in enumerate(outputs):
        mask = real.get(segment, torch.ones(1, x.shape[2], device=x.device))
        weights = mask[:, :, None].to(x.dtype)
        parts.append(((x * weights).sum(2), weights.sum(1)))
    return reduce(torch.add, (rows for rows, _ in parts)) / reduce(torch.add, (count for _, count in parts))


def _parts(model: Any) -> _Parts:
    text = getattr(model, "text", model)
    if hasattr(text, "pooler") and hasattr(text, "proj"):
        return _HuggingFace(text)
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    # CoCa appends a class token of its own behind the words: prompts can't be cropped or read out as elsewhere.
    if pool not in ("first", "last", "argmax", "eos") or getattr(text, "cls_emb", None) is not None:
        raise BadParams(
            f"backbone: the text tower {type(text).__name__} (pooling {pool!r}) is of a kind that prompts can't be "
            "tuned for; choose a CLIP or BERT one."
        )
    return _OpenClip(text, pool)


class _OpenClip:
    """open_clip's transformer: learned positions, mostly a causal mask, one row read out."""

    means = False

    def __init__(self, text: Any, pool: str) -> None:
        self.text, self.pool = text, pool
        self.embedding = text.token_embedding
        self.eos: Any = getattr(text, "text_eos_id", None) or getattr(text, "eos_id", None)
        self.causal = text.attn_mask is not None
        self.context = int(text.positional_embedding.shape[0])
        self.croppable = self.causal and pool in ("argmax", "eos")

    def length(self, ids: Tensor) -> Tensor:
        return self._row(ids) + 1

    def encode(self, x: Tensor, ids: Tensor) -> Tensor:
        n = ids.shape[1]
        mask = self.text.attn_mask
        x = x + self.text.positional_embedding[:n].to(x.dtype)
        x = self.text.transformer(x, attn_mask=None if mask is None else mask[:n, :n])
        # The norm works row by row: only the row that is read out needs it.
        return self.project(self.norm(x[torch.arange(len(x), device=x.device), self._row(ids)]))

    def blocks(self) -> list[Block]:
        return [open_block(block) for block in self.text.transformer.resblocks]

    def place(self, x: Tensor, positions: Tensor) -> Tensor:
        placed: Tensor = x + self.text.positional_embedding[positions].to(x.dtype)
        return placed

    def norm(self, rows: Tensor) -> Tensor:
        normed: Tensor = self.text.ln_final(rows)
        return normed

    def project(self, rows: Tensor) -> Tensor:
        projection = self.text.text_projection
        if projection is None:
            return rows
        return projection(rows) if isinstance(projection, nn.Linear) else rows @ projection

    def _row(self, ids: Tensor) -> Tensor:
        if self.pool == "argmax":
            return ids.argmax(-1)
        if self.pool == "eos":
            return ids.eq(self.eos).int().argmax(-1)
        return torch.full((len(ids),), 0 if self.pool == "first" else ids.shape[1] - 1, device=ids.device)


class _HuggingFace:
    """A Hugging Face encoder: bidirectional, padding masked, its own positions, pooler and projection."""

    croppable = True
    causal = False

    def __init__(self, text: Any) -> None:
        self.text = text
        self.embedding = text.transformer.get_input_embeddings()
        self.context = int(text.config.max_position_embeddings)
        self.means = type(text.pooler).__name__ == _MEAN

    def length(self, ids: Tensor) -> Tensor:
        positions = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        return (self._real(ids) * positions).amax(-1)

    def encode(self, x: Tensor, ids: Tensor) -> Tensor:
        mask = self._real(ids).long()
        out = self.text.transformer(inputs_embeds=x, attention_mask=mask)
        return self.text.proj(self.text.pooler(out, mask))

    def blocks(self) -> list[Block]:
        pooler = self.text.pooler
        if getattr(pooler, "use_pooler_output", False) or type(pooler).__name__ not in (*_FIRST_TOKEN, _MEAN):
            raise BadParams(
                "backbone: deep text prompts need a text tower that is read out at its first token or as the mean of "
                f"its tokens; this one has a {type(pooler).__name__}."
            )
        return [open_block(layer) for layer in self.text.transformer.encoder.layer]

    def place(self, x: Tensor, positions: Tensor) -> Tensor:
        embeddings = self.text.transformer.embeddings
        placed = x + embeddings.position_embeddings(positions) + embeddings.token_type_embeddings.weight[0]
        normed: Tensor = embeddings.LayerNorm(placed)
        return normed

    def norm(self, rows: Tensor) -> Tensor:
        return rows

    def project(self, rows: Tensor) -> Tensor:
        projected: Tensor = self.text.proj(rows)
        return projected

    def _real(self, ids: Tensor) -> Tensor:
        return ids != self.text.config.pad_token_id
