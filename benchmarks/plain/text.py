"""Text-context methods as their published trainers structure a step: simple, slow, and the same numbers.

Whole contexts go through the text tower, padding included; the image tower runs in each step; classes, sentences and
images are visited one after another. Serves CLIP and BiomedCLIP-style open_clip models. All functions return logits
[B, C] and the loss's weighted parts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Step = tuple[Tensor, dict[str, Tensor]]


class Plain:
    """A model, the token ids [C, T] of its classes' prompts, and the scale of the logits."""

    def __init__(self, model: Any, ids: Tensor, scale: float) -> None:
        self.model, self.ids, self.scale = model, ids, scale

    def coop(self, ctx: Tensor, pixels: Tensor, labels: Tensor) -> Step:
        """CoOp, with ctx [n_ctx, d] or [C, n_ctx, d]."""
        logits = self.scale * self.images(pixels) @ self.texts(ctx).T
        return logits, {"ce": F.cross_entropy(logits, labels)}

    def kgcoop(self, ctx: Tensor, pixels: Tensor, labels: Tensor, *, teacher_ids: Tensor, weight: float) -> Step:
        """KgCoOp, its teacher the sentences with ids [C, T]."""
        v, t = self.images(pixels), self.texts(ctx)
        with torch.no_grad():
            teacher = unit(self.model.encode_text(teacher_ids))
        logits = self.scale * v @ t.T
        distance = 1 - sum(F.cosine_similarity(t[c], teacher[c], dim=0) for c in range(len(t))) / len(t)
        return logits, {"ce": F.cross_entropy(logits, labels), "kg": weight * distance}

    def biomedcoop(
        self, ctx: Tensor, pixels: Tensor, labels: Tensor,
        *, bank: Sequence[Tensor], sccm: float, kdsp: float, tau: float,
    ) -> Step:  # fmt: skip
        """BiomedCoOp, with each class's sentence features [N_c, e]; the image tower runs twice, as there."""
        v, t = self.images(pixels), self.texts(ctx)
        logits = self.scale * v @ t.T
        images_again = self.images(pixels)
        scores = []
        for j in range(max(len(sentences) for sentences in bank)):
            features_of_sentence = torch.stack([unit(sentences[j]) for sentences in bank if len(sentences) > j])
            scores.append((self.scale * images_again @ features_of_sentence.T).max(1).values.mean().item())
        kept_sentences = selected(torch.tensor(scores), tau)
        mean = torch.stack([unit(unit(sentences).mean(0)) for sentences in bank])
        chosen = []
        for sentences in bank:
            indices = [j for j in kept_sentences if j < len(sentences)] or list(range(len(sentences)))
            chosen.append(unit(unit(sentences)[indices].mean(0)))
        return logits, {
            "ce": F.cross_entropy(logits, labels),
            "sccm": sccm * ((t - mean) ** 2).mean(),
            "kdsp": kdsp * divergence(logits, self.scale * images_again @ torch.stack(chosen).T),
        }

    def biomed_dpt(
        self, ctx: Tensor, pixels: Tensor, labels: Tensor,
        *, bank: Sequence[Tensor], l1: float, kl: float, n_visual: int, visual: Tensor | None = None,
    ) -> Step:  # fmt: skip
        """Biomed-DPT; with `visual` [blocks, n_visual, w] these stand between class token and patches, else zeros
        overwrite the first patches."""
        v = unit(with_prompts(self.model, pixels, n_visual, visual))
        t = self.texts(ctx)
        logits = self.scale * v @ t.T
        mean = torch.stack([unit(unit(sentences).mean(0)) for sentences in bank])
        return logits, {
            "ce": F.cross_entropy(logits, labels),
            "l1": l1 * (t - mean).abs().mean(),
            "kl": kl * divergence(logits, self.scale * v.detach() @ mean.T),
        }

    def cocoop(self, ctx: Tensor, pixels: Tensor, labels: Tensor, *, meta_net: Callable[[Tensor], Tensor]) -> Step:
        """CoCoOp: the text tower runs once for each image."""
        v = self.images(pixels)
        rows = [self.scale * image @ self.texts(ctx + meta_net(image)).T for image in v]
        logits = torch.stack(rows)
        return logits, {"ce": F.cross_entropy(logits, labels)}

    def images(self, pixels: Tensor) -> Tensor:
        """Unit features [B, e]."""
        return unit(self.model.encode_image(pixels))

    def texts(self, ctx: Tensor) -> Tensor:
        """Unit features [C, e] of the prompts whose tokens 1.. are replaced by the context."""
        text, n = getattr(self.model, "text", self.model), ctx.shape[-2]
        hugging_face = hasattr(text, "transformer") and hasattr(text, "pooler")
        table = text.transformer.get_input_embeddings() if hugging_face else text.token_embedding
        own = ctx if ctx.dim() == 3 else ctx.expand(len(self.ids), -1, -1)
        rows = [torch.cat([row[:1], c, row[1 + n :]]) for row, c in zip(table(self.ids), own, strict=True)]
        x = torch.stack(rows)
        if hugging_face:
            mask = (self.ids != text.config.pad_token_id).long()
            return unit(text.proj(text.pooler(text.transformer(inputs_embeds=x, attention_mask=mask), mask)))
        states = text.transformer(x + text.positional_embedding, attn_mask=text.attn_mask)
        ends = self.ids.argmax(-1)
        return unit(text.ln_final(states)[torch.arange(len(x)), ends] @ text.text_projection)


def with_prompts(model: Any, pixels: Tensor, n_visual: int, visual: Tensor | None) -> Tensor:
    """Features [B, e] of open_clip's or timm's ViT, tokens 1..n_visual overwritten in front of each block."""
    tower = model.visual
    trunk = getattr(tower, "trunk", None)
    if trunk is not None:
        x, blocks = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pixels))), trunk.blocks
    else:
        patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([tower.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        x, blocks = tower.ln_pre(x + tower.positional_embedding), tower.transformer.resblocks
    kept = 1 + n_visual if visual is None else 1
    x = torch.cat([x[:, :1], x.new_zeros(len(x), n_visual, x.shape[2]), x[:, kept:]], dim=1)
    for index, block in enumerate(blocks):
        prompts = x.new_zeros(n_visual, x.shape[2]) if visual is None else visual[index]
        x = block(torch.cat([x[:, :1], prompts.expand(len(x), -1, -1), x[:, 1 + n_visual :]], dim=1))
    if trunk is not None:
        return tower.head(trunk.head(trunk.fc_norm(trunk.norm(x)[:, 0])))
    return tower.ln_post(x)[:, 0] @ tower.proj


def selected(scores: Tensor, tau: float) -> list[int]:
    """The sentence indices that the statistics-based selection keeps: z = (s - median) / MAD, standardised, within tau.

    Where the published code would divide by a MAD of 0, the scores themselves are standardised, which is the same.
    """
    if len(scores) == 1:
        return [0]
    mad = (scores - scores.median()).abs().median()
    z = (scores - scores.median()) / (mad if mad > 0 else 1)
    return [j for j, value in enumerate((z - z.mean()) / z.std()) if abs(value) <= tau]


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) over B·C."""
    q = teacher.softmax(-1)
    return (q * (q.log() - logits.softmax(-1).log())).sum() / logits.numel()


def unit(x: Tensor) -> Tensor:
    """x / |x| along the last dimension."""
    return x / x.norm(dim=-1, keepdim=True)
