"""CoOp: the words around the class's name become trainable vectors (Zhou et al., IJCV 2022, arXiv 2109.01134)."""

from typing import ClassVar

from clinprompt.methods import register
from clinprompt.prompting.base import FeatureMethod
from clinprompt.prompting.context import ContextConfig, ContextTuning
from clinprompt.schema import Section


class CoOpConfig(ContextConfig):
    """The paper's optimiser, for 50 epochs with 4 tokens; the paper also has 16 tokens and 200 epochs."""


@register("coop")
class CoOp(ContextTuning, FeatureMethod):
    """Trains `ctx`, [n_ctx, d] shared by the classes (eq. 2) or [C, n_ctx, d], by cross-entropy (eq. 3).

    The parameters of the last epoch are the result, as in the paper.
    """

    Config: ClassVar[type[Section]] = CoOpConfig
    config: CoOpConfig
