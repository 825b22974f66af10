"""The knobs of DEFT-VLM-AD."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from clinprompt.limits import Limit
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.teacher import Template
from clinprompt.reports.style import ReportStyle


class DeftAdConfig(OptimiserSettings, ReportStyle):
    """The knobs, beside those of the optimiser and of the reports.

    `text_prompts` stand among the text tower's input or behind its output. `clip_image` is the class token that the
    contrastive loss compares: "after" or "before" it has read the report by cross-attention, which the report in both
    cases does of the image; "none": neither reads the other. `logit_scale` is multiplied raw or exponentiated. The
    MMSE is read from the projected unit token or from the one behind the tower's norm, by an MLP or one layer, in units
    of `mmse_divisor` points. `positives`: whether a text of another subject of the same class is a partner, too.
    `projections` start as the backbone's, or are drawn anew. `head`: the class texts made from `template`, or a linear
    head with a cross-entropy of its own. Without the contrastive loss (`clip_weight: 0`) no report is read: what is
    left are the image's tokens, under a linear head and the MMSE's. `depth: null` means all blocks.

    Lengths, heads, the weight of the MMSE and the batch are the release's, whose optimiser, rate and epochs are not
    published: those here are ours. Ours are also `clip_image: none`, the exponentiated scale, the divisor and the
    projections of the backbone; the release's files have "after", "raw", 1 and "drawn".
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (Limit(knobs=["depth"], kind="at_most", size="image_blocks"),)

    n_prompts: PositiveInt = 20
    depth: PositiveInt | None = None
    n_text_prompts: PositiveInt = 30
    text_prompts: Literal["input", "after_encoder"] = "input"
    clip_image: Literal["none", "after", "before"] = "none"
    heads: PositiveInt = 8
    logit_scale: Literal["exp", "raw"] = "exp"
    positives: Literal["identity", "label"] = "identity"
    mmse_token: Literal["projected", "normed"] = "projected"  # noqa: S105 - a token of a sequence
    mmse_head: Literal["mlp", "linear"] = "mlp"
    mmse_divisor: PositiveFloat = 30.0
    mmse_weight: Annotated[float, Field(ge=0)] = 0.5
    clip_weight: Annotated[float, Field(ge=0)] = 1.0
    projections: Literal["backbone", "drawn"] = "backbone"
    head: Literal["zero_shot", "linear"] = "zero_shot"
    template: Template = "A photo of {}"
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch_size: PositiveInt = 16

    @model_validator(mode="after")
    def _something_to_learn(self) -> "DeftAdConfig":
        if self.clip_weight == 0 and self.head == "zero_shot":
            raise ValueError("clip_weight: without the contrastive loss no class is learned; set head: linear")
        return self
