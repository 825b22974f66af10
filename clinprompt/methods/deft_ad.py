"""DEFT-VLM-AD: prompts, reports and the MMSE for volumes of the brain (arXiv 2509.07613)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.backbones.blocks import ReadRows
from clinprompt.errors import BadParams, NotTrained
from clinprompt.methods import register
from clinprompt.prompting.base import KnowledgeFile, Needs, Task
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.prompting.contrastive import symmetric_contrast
from clinprompt.prompting.deft_ad_config import DeftAdConfig
from clinprompt.prompting.initial import attention, like_projection, linear, truncated_normal
from clinprompt.prompting.report_text import TextTokens, cross_read, prompted_hidden
from clinprompt.prompting.sentences import Sentences
from clinprompt.prompting.visual import PatchMethod
from clinprompt.schema import Section

_WHERE = "params.yaml: methods.deft_ad"
_MOST_POINTS, _LARGEST_SCALE = 30.0, 100.0
_CLS, _MMSE = 0, 1


class ImageTokens(NamedTuple):
    """Tokens of images, CLS and MMSE first: behind the tower's norm [B, r, w], and projected [B, r, e]."""

    normed: Tensor
    projected: Tensor

    @property
    def unit(self) -> Tensor:
        """The projected ones at unit length."""
        return F.normalize(self.projected, dim=-1)


class Contrast(NamedTuple):
    """What the contrastive loss compares: features of images and of their reports [B, e], and their scores [B, B]."""

    images: Tensor
    texts: Tensor
    scores: Tensor


@register("deft_ad")
class DeftAd(PatchMethod):
    """Trains tokens of the image tower and of the text tower, and the projections behind both.

    The sequence of an image is [CLS | MMSE | prompts | patches]; each block of `depth` has prompts of its own. CLS and
    MMSE tokens are trained. The report's tokens follow the text prompts; its feature is the unit mean of its tokens,
    each projected and of unit length. Loss: symmetric InfoNCE over the batch's pairs, and the weighted mean square of
    the MMSE's error over the subjects who have one. Both towers are frozen, without dropout.

    Predictions need the image alone: its class token before any cross-attention against the classes' sentences. Of
    the last block, only the tokens that are read are computed, and no prompt that the next block replaces.

    With `clip_image` "after", as released, the loss can be brought down without reading the report: its text feature
    holds the image that it is compared with.
    """

    Config: ClassVar[type[Section]] = DeftAdConfig
    config: DeftAdConfig

    def __init__(self, task: Task, config: DeftAdConfig) -> None:
        super().__init__(task, config)
        backbone, vision, text, e = task.backbone, self.vision, task.backbone.text, task.backbone.embed_dim
        self.tower, self.sentences = text, Sentences(backbone, config.template, task.class_names, _WHERE)
        g = torch.Generator().manual_seed(task.seed)
        layers, w = config.depth or len(vision.blocks), vision.width
        self.cls_token = nn.Parameter(self._class_token())
        self.mmse_token = truncated_normal(1, 1, w, generator=g)
        self.visual_prompts = nn.ParameterList(
            truncated_normal(1, config.n_prompts, w, generator=g) for _ in range(layers)
        )
        self.text_prompts = truncated_normal(1, config.n_text_prompts, text.width, generator=g)
        self.vision_proj, self.text_proj = linear(w, e, g), linear(text.width, e, g)
        if config.projections == "backbone":
            like_projection(self.vision_proj, vision.project_normed, backbone.device)
            like_projection(self.text_proj, text.project_normed, backbone.device)
        width = e if config.mmse_token == "projected" else w  # noqa: S105 - a token of a sequence
        self.mmse_head: nn.Module = linear(width, 1, g)
        if config.mmse_head == "mlp":
            self.mmse_head = nn.Sequential(linear(width, width // 2, g), nn.ReLU(), linear(width // 2, 1, g))
        if config.clip_image != "none":
            if e % config.heads:
                raise BadParams(f"{_WHERE}.heads: must divide the joint width {e} of {backbone.name}.")
            self.cross_attention = attention(e, config.heads, g)
        self.linear_head = linear(e, len(task.class_names), g) if config.head == "linear" else None
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        if not config.clip_weight:
            for unread in (self.text_prompts, *self.text_proj.parameters(), self.logit_scale):
                unread.requires_grad_(False)
        self.register_buffer("scored", torch.ones(()))
        self.to(backbone.device)
        self._texts: Tensor | None = None
        self._val: Examples | None = None

    scored: Tensor  # 1 where the MMSE was learned, 0 where no subject had one

    @classmethod
    def needs(cls, config: DeftAdConfig) -> Needs:
        """Pixels, and the subjects' records; of a language model, paraphrases where reports are made of them."""
        read: frozenset[KnowledgeFile] = frozenset({"paraphrases"} if config.phrasings == "paraphrased" else ())
        return Needs("pixels", read, reports=config)

    @classmethod
    def class_axes(cls, config: DeftAdConfig) -> Mapping[str, int]:
        """Those of a linear head."""
        return {"linear_head.weight": 0, "linear_head.bias": 0} if config.head == "linear" else {}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        self._last = self.image_tokens(batch)
        return self._classify(self._last)

    def estimate(self, batch: Batch) -> Tensor | None:
        """The MMSE, 0 to 30 points [B]; None where no subject had one in training."""
        return self._points(self.image_tokens(batch))

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits [B, C] and the MMSE [B], of one pass."""
        images = self.image_tokens(batch)
        return self._classify(images), self._points(images)

    def image_tokens(self, batch: Batch, *, whole: bool | None = None) -> ImageTokens:
        """CLS and MMSE; all tokens where `whole`, by default where a report is to read them."""
        if whole is None:
            whole = self.config.clip_image != "none" and batch.reports is not None and self.config.clip_weight > 0
        patches = batch.inputs[:, 1:]
        first, *deeper = self.visual_prompts
        writes = {layer: {1: prompts} for layer, prompts in enumerate(deeper, 1)}
        front = torch.cat([self.cls_token, self.mmse_token], dim=1)
        read = None if whole else ReadRows(0, slice(0, 2))
        normed = self.vision.hidden([front, first, patches], writes, read)
        return ImageTokens(normed, self.vision_proj(normed))

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        return self.image_tokens(batch).projected[:, _CLS]

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and of the classes' sentences [C, e]."""
        return self.image_tokens(batch).unit[:, _CLS], self.class_texts()

    def text_tokens(self, ids: Tensor) -> TextTokens:
        """The tokens of texts, given as ids [N, T], behind the prompts."""
        at_input = self.config.text_prompts == "input"
        hidden, real = prompted_hidden(self.tower, self.text_prompts, ids, at_input=at_input)
        return TextTokens(F.normalize(self.text_proj(hidden), dim=-1), real)

    @torch.no_grad()
    def class_texts(self) -> Tensor:
        """Unit features [C, e] of the classes' sentences; once computed in evaluation state, they stay."""
        if self.training or self._texts is None:
            self._texts = self.text_tokens(self.sentences.ids).mean()
        return self._texts

    def train(self, mode: bool = True) -> Self:
        """As everywhere; what was computed of other parameters is forgotten."""
        self._texts = None
        return super().train(mode)

    def scale(self) -> Tensor:
        """What cosines are multiplied with."""
        if self.config.logit_scale == "raw":
            return self.logit_scale
        return self.logit_scale.exp().clamp(max=_LARGEST_SCALE)

    def contrast(self, batch: Batch, images: ImageTokens | None = None) -> Contrast:
        """What the loss compares, of a batch with reports."""
        assert batch.reports is not None  # noqa: S101 - `needs` sees to it
        tokens, texts = (images or self.image_tokens(batch)).unit, self.text_tokens(batch.reports)
        v, u = self._paired(tokens, texts)
        return Contrast(v, u, self.scale() * v @ u.T)

    def pairwise_logits(self, batch: Batch) -> Tensor:
        """Logits [B, C] of each image with each class's sentence through the cross-attention, as the loss compares."""
        images, texts = self.image_tokens(batch, whole=True).unit, self.text_tokens(self.sentences.ids)
        n, classes = len(images), len(texts.tokens)
        v, u = self._paired(images.repeat_interleave(classes, dim=0), texts.repeated(n))
        return (self.scale() * (v * u).sum(-1)).reshape(n, classes)

    def mmse(self, images: ImageTokens) -> Tensor:
        """The predicted MMSE [B] in units of `mmse_divisor` points."""
        read = images.unit if self.config.mmse_token == "projected" else images.normed  # noqa: S105
        predicted: Tensor = self.mmse_head(read[:, _MMSE])
        return predicted[:, 0]

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted InfoNCE and error of the MMSE, and the cross-entropy of a linear head.

        Raises:
            NotTrained: the batch is a single image, which has nothing to be told from.
        """
        if len(batch) == 1 and self.config.clip_weight:
            raise NotTrained(
                f"{_WHERE}.batch_size: the contrastive loss tells the images of a batch apart, and this part of a "
                "batch holds one; take more images, fewer micro-batches or fewer processes"
            )
        images, parts = self._last, {}
        if self.config.clip_weight:
            labels = batch.labels if self.config.positives == "label" else None
            scores = self.contrast(batch, images).scores.float()
            parts["clip"] = self.config.clip_weight * symmetric_contrast(scores, labels)
        if batch.scores is not None:
            parts["mmse"] = self.config.mmse_weight * self._error(images, batch.scores)
        if self.linear_head is not None:
            parts["ce"] = F.cross_entropy(logits, batch.labels)
        return torch.stack(list(parts.values())).sum(), parts

    def start(self, train: Examples, val: Examples) -> None:
        """See whether there is an MMSE to learn, and keep the validation split for the findings."""
        known = train.scores is not None and bool(train.scores.isfinite().any())
        self.scored.fill_(float(known and self.config.mmse_weight > 0))
        self._val = val

    @torch.no_grad()
    def findings(self) -> dict[str, float]:
        """The mean absolute error of the MMSE on the validation split, in points."""
        if self._val is None or self._val.scores is None or not self.scored:
            return {}
        errors = torch.cat(list(self._errors(self._val)))
        return {"mmse_error": float(errors.mean())} if len(errors) else {}

    def _errors(self, examples: Examples) -> Iterator[Tensor]:
        for start in range(0, len(examples), self.config.batch_size):
            batch = examples.batch(slice(start, start + self.config.batch_size))
            found = self.estimate(batch)
            assert found is not None  # noqa: S101 - asked only where the MMSE was learned
            assert batch.scores is not None  # noqa: S101
            error = (found - batch.scores).abs()
            yield error[error.isfinite()]

    def _error(self, images: ImageTokens, scores: Tensor) -> Tensor:
        """The mean squared error over those who have a score; 0 without gradient where none has."""
        known = scores.isfinite()
        wanted = torch.where(known, scores, 0.0) / self.config.mmse_divisor
        squares = torch.where(known, (self.mmse(images).float() - wanted) ** 2, 0.0)
        return squares.sum() / known.sum().clamp(min=1)

    def _paired(self, images: Tensor, texts: TextTokens) -> tuple[Tensor, Tensor]:
        """Features of images and texts [N, e] that belong together, of the images' unit tokens [N, r, e]."""
        if self.config.clip_image == "none":
            return images[:, _CLS], texts.mean()
        first, told = cross_read(self.cross_attention, images, texts)
        return images[:, _CLS] if self.config.clip_image == "before" else first, told.mean()

    def _classify(self, images: ImageTokens) -> Tensor:
        if self.linear_head is not None:
            logits: Tensor = self.linear_head(images.projected[:, _CLS])
            return logits
        return self.scale() * images.unit[:, _CLS] @ self.class_texts().T

    def _points(self, images: ImageTokens) -> Tensor | None:
        if not self.scored:
            return None
        return (self.config.mmse_divisor * self.mmse(images)).clamp(0.0, _MOST_POINTS)

    def _class_token(self) -> Tensor:
        """The backbone's [1, 1, w], with its position where it has one."""
        vision = self.vision
        channels = vision.patch_values // int(torch.tensor(vision.patch).prod())
        sides = [n * side for n, side in zip(vision.grid, vision.patch, strict=True)]
        with torch.no_grad():
            empty: Any = torch.zeros(1, channels, *sides, device=self._backbone.device)
            return vision.embed(empty)[:, :1].clone()
