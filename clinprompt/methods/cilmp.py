"""CILMP: a language model's states as prompts, bent by each image (IEEE TMI 44(12), 2025, arXiv 2511.12639)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.errors import BadParams
from clinprompt.limits import Limit
from clinprompt.methods import register
from clinprompt.prompting.averaging import GaussianAverage
from clinprompt.prompting.base import Knowledge, Needs, PromptMethod, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.context import ContextInit, ContextPrompts
from clinprompt.prompting.intervention import BentRows, RowPrompts, StateRows
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section

_WHERE = "params.yaml: methods.cilmp"
_INIT_STD = 0.02


class Averaging(Section):
    """Gaussian weights over the epochs: `mean` and `std` in epochs."""

    mean: float
    std: PositiveFloat


class CILMPConfig(OptimiserSettings):
    """`text_depth: null` means all blocks; `vision_depth: 0` leaves the image tower alone, and features are cached.

    `llm_layers` picks rows of the states by number (negative ones from the end), null takes all; `normalize_rows`
    divides each row by its root mean square; `dropout` is that of the intervened rows; `averaging` of the prompts
    over the epochs, null for none. The defaults are those of the released config (CILMP/vit_b16.yaml).
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (
        Limit(knobs=["text_depth"], kind="at_most", size="text_blocks"),
        Limit(knobs=["vision_depth"], kind="at_most", size="image_blocks"),
        Limit(knobs=["llm_layers"], kind="index_of", size="fewest_states"),
        Limit(knobs=["prefix_length", "suffix_length"], kind="at_most", size="fewest_states"),
        Limit(
            knobs=["n_ctx"], kind="at_most", size="positions", plus=4, plus_rows=True,
            beside="4 tokens for the rest of the shortest prompt",
        ),
    )  # fmt: skip

    n_ctx: PositiveInt = 4
    context_init: ContextInit = "a photo of a"
    n_ctx_vision: PositiveInt = 4
    text_depth: PositiveInt | None = None
    vision_depth: NonNegativeInt | None = None
    prefix_length: NonNegativeInt = 4
    suffix_length: NonNegativeInt = 4
    rank: PositiveInt = 8
    dropout: float = Field(0.1, ge=0, lt=1)
    llm_layers: list[int] | None = None
    normalize_rows: bool = False
    averaging: Averaging | None = Averaging(mean=100.0, std=30.0)
    learning_rate: PositiveFloat = 0.0025
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 100


@register("cilmp")
class CILMP(PromptMethod):
    """The released model: t_{b,c} comes from "[ctx] [P_{b,c,1..L}] <name>.", P from the LLM's rows and the image.

    Trained are the context at the first text block (`ctx`) and the text prompts that replace it at the others, each
    block's interventions and dimension adjustment (`text_layers`), and the visual prompts behind the patches, at the
    first block before the tower's first norm, replaced before each later one. Cross-entropy; SGD with a constant
    warm-up and a cosine per epoch; Gaussian averaging of all prompts but the interventions. Dropout on the intervened
    rows is the released 0.1; both towers are in float32.

    Of the text tower, only what is read later is computed: keys and values of the prompts, which the next block
    replaces, each at the shape at which it varies ([d] for ctx, per class for the rows between, per image and class
    for the intervened ones), and whole blocks for the tokens of the name.
    """

    Config: ClassVar[type[Section]] = CILMPConfig
    config: CILMPConfig

    def __init__(self, task: Task, config: CILMPConfig) -> None:
        super().__init__(task, config)
        self.backbone, self.tower, self.scale = task.backbone, task.backbone.text, task.backbone.logit_scale
        self.blocks = self.tower.blocks
        self.text_depth = config.text_depth or len(self.blocks)
        self._keep(task)
        states = [class_rows.to(self.tower.device) for class_rows in _states(task, config)]
        self.rows = StateRows(states, config.prefix_length, config.suffix_length)
        self.prompts = ContextPrompts(
            task.backbone, task.class_names, n_ctx=config.n_ctx, phrase=config.context_init, position="end",
            where=_WHERE,
        )  # fmt: skip
        self._check_length(task)
        generator = torch.Generator().manual_seed(task.seed)
        width, shape = states[0].shape[1], (config.n_ctx, self.tower.width)
        phrase = self.prompts.phrase
        self.ctx = nn.Parameter(_normal(shape, generator) if phrase is None else phrase.cpu().clone())
        deep = range(1, self.text_depth)
        self.text_prompts = nn.ParameterDict({str(layer): _normal(shape, generator) for layer in deep})
        self.text_layers = nn.ModuleList(
            RowPrompts(width, task.backbone.embed_dim, self.tower.width, config.rank, config.dropout, generator)
            for _ in range(self.text_depth)
        )
        depth = 0
        if config.vision_depth != 0:
            depth = config.vision_depth or len(task.backbone.vision.blocks)
            shape = (config.n_ctx_vision, task.backbone.vision.width)
        self.visual_prompts = nn.ParameterList(_normal(shape, generator) for _ in range(depth))
        self.to(self.tower.device)

    @classmethod
    def needs(cls, config: CILMPConfig) -> Needs:
        """The hidden states, and pixels where there are visual prompts."""
        return Needs("features" if config.vision_depth == 0 else "pixels", frozenset({"hidden_states"}))

    @classmethod
    def knowledge_in(cls, state: dict[str, Tensor]) -> Knowledge:
        """The states that the model was trained with."""
        counts = [int(n) for n in state["states_per_class"]]
        return Knowledge(hidden_states=state["states"].split(counts))

    @classmethod
    def reordered(cls, state: dict[str, Tensor], order: Sequence[int], config: CILMPConfig) -> dict[str, Tensor]:
        """With the states, which are not trained, but of which each class has rows of its own."""
        states = cls.knowledge_in(state).hidden_states
        counts = state["states_per_class"][list(order)]
        moved = {"states": torch.cat([states[place] for place in order]), "states_per_class": counts}
        return super().reordered(state, order, config) | moved

    def prepare(self, pixels: Tensor) -> Tensor:
        """The class token and patches with their positions [B, 1 + patches, w]."""
        return self.backbone.vision.embed(pixels)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C] = s ⟨v_b, t_{b,c}⟩."""
        v, t = self.features(batch)
        return self.scale * torch.einsum("be,bce->bc", v, t)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and, given those, of the classes [B, C, e]."""
        v = F.normalize(self._encode_images(batch.inputs), dim=-1)
        return v, F.normalize(self.text_features(v), dim=-1)

    def averaging(self) -> GaussianAverage | None:
        """The prompts; the interventions and the dimension adjustment keep their last values, as released."""
        knobs = self.config.averaging
        names = {name for name in self.trainable_parameters() if not name.startswith("text_layers.")}
        return None if knobs is None else GaussianAverage(knobs.mean, knobs.std, frozenset(names))

    def bent_rows(self) -> BentRows:
        """The classes' states, and the interventions of each text block."""
        return BentRows(self.rows, tuple(layer for layer in self.text_layers if isinstance(layer, RowPrompts)))

    def _encode_images(self, inputs: Tensor) -> Tensor:
        if not len(self.visual_prompts):
            return inputs
        first, *deeper = self.visual_prompts
        writes = {layer: {1: prompts} for layer, prompts in enumerate(deeper, 1)}
        return self.backbone.vision.encode([inputs, first[None]], writes)

    def text_features(self, v: Tensor) -> Tensor:
        """Features [B, C, e], not normalised, of the prompts for unit image features v [B, e]."""
        rows, place = self.rows, self.tower.place
        prompts = [layer(rows, v) for layer in self.text_layers]
        start, name = self.prompts.around()
        n = torch.arange(1 + self.config.n_ctx, device=v.device)
        first, middle, last = (len(n) + offset for offset in rows.positions())
        ends = self.tower.real_length(self.prompts.ids) - 1 - len(n)
        placed = [
            place(start[:1], n[:1])[None],
            place(self.ctx, n[1:])[None, None],
            place(prompts[0][0], first),
            place(prompts[0][1], middle),
            place(prompts[0][2], last),
            place(name, self._name_positions(name.shape[1]))[None],
        ]
        real = {3: rows.real} if rows.ragged else {}
        writes = {
            layer: {1: self.text_prompts[str(layer)][None, None], **dict(zip((2, 3, 4), prompts[layer], strict=True))}
            for layer in range(1, self.text_depth)
        }
        return self.tower.encode_segments(placed, ends, writes=writes, real=real, blocks=self.blocks)

    def _name_positions(self, n: int) -> Tensor:
        """Where the name's tokens and the padding behind them stand [C, n]."""
        positions = 1 + self.config.n_ctx + self.rows.count[:, None] + torch.arange(n, device=self.rows.count.device)
        return positions.clamp(max=self.tower.context - 1)

    def _keep(self, task: Task) -> None:
        """Make the states part of the trained model."""
        assert task.knowledge is not None  # noqa: S101 - `needs` and `knowledge_in` see to it
        states = task.knowledge.hidden_states
        self.register_buffer("states", torch.cat(states).float())
        self.register_buffer("states_per_class", torch.tensor([float(len(rows)) for rows in states]))

    def _check_length(self, task: Task) -> None:
        lengths = self.tower.real_length(self.prompts.ids) + self.rows.count
        longest = int(lengths.argmax())
        if int(lengths[longest]) > self.tower.context:
            raise BadParams(
                f"{_WHERE}: the prompt of class {task.class_names[longest]!r} has {int(lengths[longest])} tokens with "
                f"{int(self.rows.count[longest])} rows of the language model, and the backbone {task.backbone.name} "
                f"reads {self.tower.context}; pick fewer rows with llm_layers, or shorten the class's name in the card."
            )


def _states(task: Task, config: CILMPConfig) -> list[Tensor]:
    """The rows of each class [L_c, D], picked and normalised as asked."""
    assert task.knowledge is not None  # noqa: S101 - as above
    class_states = []
    for states in task.knowledge.hidden_states:
        picked = states if config.llm_layers is None else states[config.llm_layers]
        if config.normalize_rows:
            picked = picked / picked.square().mean(1, keepdim=True).sqrt()
        class_states.append(picked.float())
    return class_states


def _normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * _INIT_STD
