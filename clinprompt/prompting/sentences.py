"""One sentence per class, in segments: a template's words and the class's name, with learned vectors among them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clinprompt.errors import BadParams
from clinprompt.prompting.class_prompts import class_prompt_ids

if TYPE_CHECKING:
    from clinprompt.backbones.blocks import Block
    from clinprompt.backbones.load import Backbone


class Sentences:
    """A template filled with each class's name, for a text tower that can be taken apart.

    Attributes:
        ids: token ids [C, n], cropped to the longest sentence.
        embedded: their frozen embeddings [C, n, d], without positions.
        shared: how many leading tokens, the start token among them, are the same in all sentences.

    Raises:
        BadParams: a sentence is longer than the tower's context, two are the same to the tower, or it has no mask that
            tells where one ends.
    """

    def __init__(self, backbone: "Backbone", template: str, names: Sequence[str], where: str) -> None:
        self.tower = backbone.text
        if not self.tower.croppable:
            raise BadParams(f"{where}: the text tower of {backbone.name} has neither a causal nor a padding mask.")
        ids = class_prompt_ids(backbone, [template.replace("{}", name) for name in names], names, where)
        lengths = self.tower.real_length(ids)
        longest = int(lengths.argmax())
        if int(lengths[longest]) >= ids.shape[1]:  # the tokeniser cuts what is too long
            raise BadParams(
                f"{where}: the sentence of class {names[longest]!r} does not fit the {ids.shape[1]} tokens that the "
                f"backbone {backbone.name} reads; shorten the class's name in the dataset's card, or the template."
            )
        self.ids = ids[:, : int(lengths[longest])].to(self.tower.device)
        prefix = backbone.tokenize([template.partition("{}")[0].strip()])
        self.shared = int(self.tower.real_length(prefix)) - 1  # less the end token
        with torch.no_grad():
            self.embedded = self.tower.embed(self.ids)

    def place(self, embeddings: Tensor, start: int) -> Tensor:
        """A segment [1, c, n, d] of embeddings [c, n, d] that stand from position `start` on."""
        positions = torch.arange(start, start + embeddings.shape[-2], device=embeddings.device)
        return self.tower.place(embeddings, positions)[None]

    def encode(
        self,
        segments: Sequence[Tensor],
        writes: Mapping[int, Mapping[int, Tensor]] | None = None,
        blocks: "Sequence[Block] | None" = None,
    ) -> Tensor:
        """Features [C, e], not normalised, of sentences given as segments [1, c, n, d] with their positions.

        The last segment is each class's own and holds the sentence's end; what stands before it has the same length
        for all. `writes` and `blocks` as in `blocks.run`; without blocks, the tower's own are run.
        """
        ends = self.tower.real_length(self.ids) - 1 - sum(x.shape[2] for x in segments[:-1])
        return self.tower.encode_segments(segments, ends, writes=writes, blocks=blocks)[0]
