"""What a frozen text tower says of the classes, as a teacher for tuned prompts, and the losses that pull towards it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from clinprompt.errors import DataRejected
from clinprompt.prompting.base import Task
from clinprompt.prompting.class_prompts import class_prompt_ids

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone

_AT_ONCE = 256  # sentences
_ONCE = "must hold {} once, where the class's name goes"


def _names_the_class(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError(f"{_ONCE}, found {template!r}")
    return template


Template = Annotated[
    str,
    AfterValidator(_names_the_class),
    # The same for the JSON schema, which holds no Python.
    Field(json_schema_extra={"pattern": r"^(?![\s\S]*\{\}[\s\S]*\{\})[\s\S]*\{\}", "errorMessage": _ONCE}),
]


@torch.no_grad()
def encode_sentences(backbone: "Backbone", sentences: Sequence[str]) -> Tensor:
    """Unit features [N, e] of sentences."""
    tower = backbone.text
    ids = backbone.tokenize(list(sentences)).to(tower.device)
    return F.normalize(torch.cat([tower.encode_ids(part) for part in ids.split(_AT_ONCE)]), dim=-1)


def hand_written(task: Task, template: str) -> Tensor:
    """Unit features [C, e] of one sentence per class: the template with its name.

    Raises:
        BadParams: two classes have the same tokens.
    """
    sentences = [template.replace("{}", name) for name in task.class_names]
    class_prompt_ids(task.backbone, sentences, task.class_names, f"the template {template!r}")
    return encode_sentences(task.backbone, sentences)


@dataclass(frozen=True)
class TeacherBank:
    """Features of N sentences per class; a class may have fewer.

    Attributes:
        features: [C, N, e], unit length; zeros where a class has fewer sentences.
        real: which sentences exist, bool [C, N].
    """

    features: Tensor
    real: Tensor

    @classmethod
    def of(cls, task: Task, method: str) -> "TeacherBank":
        """The bank of the classes' descriptions, encoded once.

        Raises:
            DataRejected: a class has none.
        """
        descriptions = task.knowledge.descriptions if task.knowledge else ()
        counts = [len(sentences) for sentences in descriptions]
        if len(counts) != len(task.class_names) or 0 in counts:
            name = task.class_names[counts.index(0) if 0 in counts else 0]
            raise DataRejected(
                f"The class {name!r} has no accepted description, and {method} learns from descriptions of every "
                "class; set knowledge.min_accepted_per_class in params.yaml to at least 1."
            )
        rows = encode_sentences(task.backbone, [text for sentences in descriptions for text in sentences])
        columns = torch.arange(max(counts), device=rows.device)
        real = columns < torch.tensor(counts, device=rows.device)[:, None]
        features = rows.new_zeros(*real.shape, rows.shape[1])
        features[real] = rows
        return cls(features, real)

    def mean(self, keep: Tensor | None = None) -> Tensor:
        """The normalised mean [C, e] of each class's sentences, or of those at the places `keep`, bool [N].

        A class that has no sentence at any of these places keeps all.
        """
        averaged = self.real if keep is None else self.real & keep
        averaged = torch.where(averaged.any(1, keepdim=True), averaged, self.real)
        # The length of the sum does not matter: it is normalised.
        return F.normalize(torch.einsum("cn,cne->ce", averaged.to(self.features.dtype), self.features), dim=-1)

    def scores(self, images: Tensor, scale: float) -> Tensor:
        """SDPS's score [N] of each place j: mean_b max_c s <v_b, e_cj> for unit image features v [B, e].

        The maximum is over the classes that have a j-th sentence; in the paper, all have.
        """
        cosines = images @ self.features.flatten(0, 1).T
        cosines = cosines.unflatten(1, self.real.shape)
        return scale * cosines.masked_fill(~self.real, -torch.inf).amax(1).mean(0)

    def select(self, images: Tensor, scale: float, tau: float) -> Tensor:
        """Which places are no outliers by their score, bool [N] (BiomedCoOp's statistics-based prompt selection).

        With z_j = (s_j - median) / MAD, place j is kept when |(z_j - mean z) / std z| <= tau, std with N - 1. Median
        and MAD cancel in that, so they are not computed, and a MAD of 0 does no harm. Equal scores are all kept.
        """
        scores = self.scores(images, scale)
        std = scores.std(correction=min(1, len(scores) - 1))
        return ~(((scores - scores.mean()) / std).abs() > tau)


def l1(texts: Tensor, teacher: Tensor) -> Tensor:
    """The mean over classes and dimensions of |t - m|, both [C, e]."""
    return F.l1_loss(texts, teacher)


def mse(texts: Tensor, teacher: Tensor) -> Tensor:
    """The mean over classes and dimensions of (t - m)², both [C, e]."""
    return F.mse_loss(texts, teacher)


def cosine(texts: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean_c <t_c, m_c> of unit features [C, e]."""
    return 1 - (texts * teacher).sum(-1).mean()


def kl(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of logits [B, C], summed and divided by B·C, as the released trainers do."""
    p, q = logits.log_softmax(-1), teacher.log_softmax(-1)
    return F.kl_div(p, q, reduction="sum", log_target=True) / logits.numel()
