"""Prompts in which learned context vectors stand where a template's first words stood."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from clinprompt.errors import BadParams

if TYPE_CHECKING:
    from clinprompt.backbones import Backbone

Position = Literal["front", "middle", "end"]


class ContextPrompts:
    """One prompt per class: start token, `n_ctx` learned vectors, then the frozen rest of the tokenised template.

    The template is "<phrase> <name>." or, without a phrase, "<name>." behind placeholders. `position` says where the
    class's name stands: behind the context ("end"), before it ("front") or in the middle, with the first half of the
    vectors (rounded down) before it.

    Attributes:
        ids: token ids of the prompts [C, n], cropped to the longest; they tell the text tower where prompts end.
        phrase: the frozen embedding of the phrase's tokens [n_ctx, d], or None without a phrase.

    Raises:
        BadParams: `n_ctx` is not the phrase's number of tokens, a prompt is longer than the tower's context, or the
            tower has no mask that tells where a prompt ends.
    """

    def __init__(
        self,
        backbone: "Backbone",
        names: Sequence[str],
        *,
        n_ctx: int,
        phrase: str | None,
        position: Position,
        where: str,
    ) -> None:
        tower = backbone.text
        if not tower.croppable:
            raise BadParams(f"{where}: the text tower of {backbone.name} has neither a causal nor a padding mask.")
        ids = _template_ids(backbone, names, n_ctx, phrase, where)
        lengths = tower.real_length(ids)
        self.n_ctx = n_ctx
        self.ids = ids[:, : int(lengths.max())].to(tower.device)
        with torch.no_grad():
            embedded = tower.embed(self.ids)
        self.phrase = embedded[0, 1 : 1 + n_ctx].clone() if phrase is not None else None
        self._start, self._rest = embedded[:, :1], embedded[:, 1 + n_ctx :]
        self._order = None
        if position != "end":
            stop = int(tower.real_length(backbone.tokenize(["."]))) - 2
            order = _order(lengths.tolist(), self.ids.shape[1], n_ctx, stop, n_ctx // 2 if position == "middle" else 0)
            self._order = order.to(tower.device)
            # Only tokens before the full stop change places: the prompts' ends stay where they are.
            self.ids = self.ids.gather(1, self._order)

    def fill(self, ctx: Tensor) -> Tensor:
        """Prompts as embeddings [C, n, d] for context vectors [n_ctx, d], or [C, n_ctx, d] with each class its own."""
        prompts = torch.cat([self._start, ctx.expand(len(self.ids), -1, -1), self._rest], dim=1)
        if self._order is None:
            return prompts
        return prompts.gather(1, self._order[:, :, None].expand_as(prompts))


def _template_ids(backbone: "Backbone", names: Sequence[str], n_ctx: int, phrase: str | None, where: str) -> Tensor:
    """Ids [C, T] of the prompts with the name at the end; what stands at the context's places does not matter."""
    tower = backbone.text
    if phrase is not None:
        found = int(tower.real_length(backbone.tokenize([phrase]))) - 2  # less the start and the end token
        if found != n_ctx:
            raise BadParams(
                f"{where}.n_ctx: must be {found}, the number of tokens of context_init ({phrase!r}) for the backbone "
                f"{backbone.name}, found {n_ctx}."
            )
        ids = backbone.tokenize([f"{phrase} {name}." for name in names])
        room = 0
    else:
        ids = backbone.tokenize([f"{name}." for name in names])
        room = n_ctx
    lengths = tower.real_length(ids)
    longest, context = int(lengths.argmax()), ids.shape[1]
    if int(lengths[longest]) + room >= context:  # the tokeniser cuts what is too long
        raise BadParams(
            f"{where}: the prompt of class {names[longest]!r} does not fit the {context} tokens that the backbone "
            f"{backbone.name} reads; shorten the class's name in the dataset's card, or lower n_ctx."
        )
    if room:
        # Some real token of the class itself as placeholder: neither padding nor the end in any tokeniser.
        ids = torch.cat([ids[:, :1], ids[:, 1:2].expand(-1, room), ids[:, 1:-room]], dim=1)
    return ids


def _order(lengths: list[int], n: int, n_ctx: int, stop: int, before: int) -> Tensor:
    """For each place of the wanted prompt [C, n], the place in [start | context | name | full stop | end].

    Args:
        lengths: of the prompts, from start to end token.
        stop: how many tokens the full stop takes.
        before: how many context vectors stand before the name.
    """
    context = list(range(1, 1 + n_ctx))
    rows = []
    for length in lengths:
        tail = length - 1 - stop
        name = list(range(1 + n_ctx, tail))
        rows.append([0, *context[:before], *name, *context[before:], *range(tail, n)])
    return torch.tensor(rows)
