"""Prompts in which learned context vectors stand where a template's first words stood, and what tunes them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, PositiveInt
from torch import Tensor, nn

from clinprompt.errors import BadParams
from clinprompt.limits import Limit
from clinprompt.prompting.base import Head, PromptMethod, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.class_prompts import class_prompt_ids
from clinprompt.prompting.optimisation import OptimiserSettings

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone

Position = Literal["front", "middle", "end", "middle_refbug"]
# The empty phrase of CoOp's own configs means that there is none.
ContextInit = Annotated[str | None, AfterValidator(lambda phrase: phrase or None)]

_INIT_STD = 0.02


class ContextPrompts:
    """One prompt per class: start token, `n_ctx` learned vectors, then the frozen rest of the tokenised template.

    The template is "<phrase> <name><tail>" or, without a phrase, "<name><tail>" behind placeholders. The phrase's
    first `n_ctx` tokens are replaced; what it has beyond them stays, frozen. `position` says where the class's name
    stands: behind the phrase ("end"), before it ("front") or in the middle, with the first half of the vectors
    (rounded down) before it. "middle_refbug" is what the published code of BiomedCoOp and Biomed-DPT makes of
    "middle": it takes every name for one token, so that only one frozen token stands between the two halves.

    Attributes:
        ids: token ids of the prompts [C, n], cropped to the longest; they tell the text tower where prompts end.
        padding: the id that stands behind a prompt's end.
        phrase: the frozen embedding of the phrase's first `n_ctx` tokens [n_ctx, d], or None without a phrase.

    Raises:
        BadParams: the phrase has fewer than `n_ctx` tokens, a prompt is longer than the tower's context, two are the
            same to the tower, or it has no mask that tells where a prompt ends.
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
        tail: str = ".",
    ) -> None:
        tower = backbone.text
        if not tower.croppable:
            raise BadParams(f"{where}: the text tower of {backbone.name} has neither a causal nor a padding mask.")
        phrase_length = n_ctx if phrase is None else _count(backbone, phrase)
        if phrase_length < n_ctx:
            raise BadParams(
                f"{where}.n_ctx: must be at most {phrase_length}, the number of tokens of {phrase!r} for the backbone "
                f"{backbone.name}, found {n_ctx}."
            )
        ids = _template_ids(backbone, names, tail, n_ctx, phrase, where)
        lengths = tower.real_length(ids)
        self.n_ctx = n_ctx
        self.ids = ids[:, : int(lengths.max())].to(tower.device)
        self.padding = int(ids[0, -1])  # no prompt fills the whole context
        with torch.no_grad():
            embedded = tower.embed(self.ids)
        self.phrase = embedded[0, 1 : 1 + n_ctx].clone() if phrase is not None else None
        self._start, self._rest = embedded[:, :1], embedded[:, 1 + n_ctx :]
        self._order = None
        if position != "end":
            behind = lengths - 1 - _count(backbone, tail)
            spans = [(1 + phrase_length, stop) for stop in behind.tolist()]
            if position == "middle_refbug":
                spans = [(1 + n_ctx, 2 + n_ctx)] * len(spans)
            order = _order(spans, self.ids.shape[1], n_ctx, 0 if position == "front" else n_ctx // 2)
            self._order = order.to(tower.device)
            # Only tokens before the tail change places: the prompts' ends stay where they are.
            self.ids = self.ids.gather(1, self._order)

    def around(self) -> tuple[Tensor, Tensor]:
        """The frozen embeddings before the context [C, 1, d] and behind it [C, m, d], with the name at the end."""
        return self._start, self._rest

    def fill(self, ctx: Tensor) -> Tensor:
        """Prompts as embeddings [..., C, n, d] for context vectors [n_ctx, d], or [..., c, n_ctx, d], c in {1, C}."""
        ctx = ctx.expand(*ctx.shape[:-3], len(self.ids), -1, -1)
        around = [part.expand(*ctx.shape[:-2], -1, -1) for part in (self._start, self._rest)]
        prompts = torch.cat([around[0], ctx, around[1]], dim=-2)
        if self._order is None:
            return prompts
        return prompts.gather(-2, self._order[:, :, None].expand_as(prompts))


def _count(backbone: "Backbone", text: str) -> int:
    """The number of tokens of a text, without the start and the end."""
    return int(backbone.text.real_length(backbone.tokenize([text.strip()]))) - 2


def _template_ids(
    backbone: "Backbone", names: Sequence[str], tail: str, n_ctx: int, phrase: str | None, where: str
) -> Tensor:
    """Ids [C, T] of the prompts with the name at the end; what stands at the context's places does not matter."""
    ends = [f"{name}{tail}" for name in names]
    ids = class_prompt_ids(backbone, [end if phrase is None else f"{phrase} {end}" for end in ends], names, where)
    room = n_ctx if phrase is None else 0
    lengths = backbone.text.real_length(ids)
    longest, context = int(lengths.argmax()), ids.shape[1]
    if int(lengths[longest]) + room >= context:  # the tokeniser cuts what is too long
        raise BadParams(
            f"{where}: the prompt of class {ends[longest]!r} does not fit the {context} tokens that the backbone "
            f"{backbone.name} reads; shorten the class's name in the dataset's card, or lower n_ctx."
        )
    if room:
        # Some real token of the class itself as placeholder: neither padding nor the end in any tokeniser.
        ids = torch.cat([ids[:, :1], ids[:, 1:2].expand(-1, room), ids[:, 1:-room]], dim=1)
    return ids


def _order(names: list[tuple[int, int]], n: int, n_ctx: int, before: int) -> Tensor:
    """For each place of the wanted prompt [C, n], the place in [start | context | words | name | tail | end].

    Args:
        names: where each class's name starts and stops.
        before: how many context vectors stand before the name.
    """
    context = list(range(1, 1 + n_ctx))
    rows = []
    for start, stop in names:
        phrase = range(1 + n_ctx, start)
        rows.append([0, *context[:before], *range(start, stop), *context[before:], *phrase, *range(stop, n)])
    return torch.tensor(rows)


class ContextKnobs(OptimiserSettings):
    """The context's length, whether each class has its own, and where the class's name stands.

    The defaults are those of BiomedCoOp's comparison (2411.15232); CoOp itself also has 16 tokens.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (
        # The tokeniser cuts what is too long, so that a prompt that fills all may have been cut.
        Limit(knobs=["n_ctx"], kind="at_most", size="tokens", plus=5, beside="5 for the rest of the shortest prompt"),
    )

    n_ctx: PositiveInt = 4
    class_specific: bool = False
    class_position: Position = "end"

    @abstractmethod
    def phrase_and_tail(self) -> tuple[str | None, str]:
        """The phrase in front of the class's name, or None without one, and what follows the name."""


class ContextConfig(ContextKnobs):
    """`context_init` is the phrase whose token embeddings the context starts from; null draws from N(0, 0.02²)."""

    context_init: ContextInit = "a photo of a"

    def phrase_and_tail(self) -> tuple[str | None, str]:
        """The phrase, and a full stop."""
        return self.context_init, "."


class UnitFeatures(NamedTuple):
    """The unit features that logits were computed from: `images` [B, e] and `texts`, [C, e] or [B, C, e]."""

    images: Tensor
    texts: Tensor


class ContextTuning(PromptMethod):
    """What CoOp and its kin share: trained is `ctx`, [n_ctx, d] for all classes or [C, n_ctx, d].

    Logits are z_bc = s <v_b, t_c>, with t_c from class c's prompt. Both towers and the logit scale s are frozen, and
    dropout is off. The image features are those of the unaugmented image, computed once; the published trainers draw
    an augmented image in each epoch.

    Attributes:
        unit_features: those behind the last logits, for the parts of a loss that need more than logits.
    """

    config: ContextKnobs
    unit_features: UnitFeatures

    def __init__(self, task: Task, config: ContextKnobs) -> None:
        super().__init__(task, config)
        self.tower = task.backbone.text
        self.scale = task.backbone.logit_scale
        phrase, tail = config.phrase_and_tail()
        self.prompts = ContextPrompts(
            task.backbone, task.class_names, n_ctx=config.n_ctx, phrase=phrase, tail=tail,
            position=config.class_position, where=f"params.yaml: methods.{self.name}",
        )  # fmt: skip
        self.ctx = nn.Parameter(self._initial(len(task.class_names), task.seed))

    @classmethod
    def class_axes(cls, config: ContextKnobs) -> Mapping[str, int]:
        """That of the context, where each class has its own."""
        return {"ctx": 0} if config.class_specific else {}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        return self.logits(*self.features(batch))

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Logits [B, C] of unit features of images [B, e] and classes [C, e]."""
        self.unit_features = UnitFeatures(images, texts)
        return self.scale * images @ texts.T

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and of the classes' prompts [C, e]."""
        return self.image_features(batch.inputs), self.text_features()

    def image_features(self, inputs: Tensor) -> Tensor:
        """Unit features [B, e] of what a batch holds: here, of the tower's raw features."""
        return F.normalize(inputs, dim=-1)

    def text_features(self) -> Tensor:
        """Unit features of the classes' prompts [C, e]."""
        return F.normalize(self.tower.encode(self.prompts.fill(self.ctx), self.prompts.ids), dim=-1)

    def head(self) -> Head:
        """The normalised features of the prompts, times the backbone's logit scale."""
        return Head(self.text_features(), self.scale)

    def _initial(self, classes: int, seed: int) -> Tensor:
        shape: tuple[int, ...] = (self.config.n_ctx, self.tower.width)
        if self.config.class_specific:
            shape = (classes, *shape)
        if self.prompts.phrase is not None:
            return self.prompts.phrase.expand(shape).clone()
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(shape, generator=generator) * _INIT_STD).to(self.tower.device)
