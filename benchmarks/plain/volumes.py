"""DEFT-VLM-AD's step without any of the shortcuts, laid out as the released code does it.

Patches are embedded in each step, attention scores are matrices that stay for the way back, and every token of every
block is computed and projected. It reads the parameters of a `DeftAd` without cross-attention.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def step_loss(model: Any, clip: Any, volumes: Tensor, ids: Tensor, scores: Tensor) -> Tensor:
    """Minus the scaled cosines of volumes [B, c, D, H, W] and their reports [B, T], and the weighted MMSE error."""
    tokens = F.normalize(model.vision_proj(image_tokens(model, clip, volumes)), dim=-1)
    texts, real = text_tokens(model, clip, ids)
    text = F.normalize((real[..., None] * texts).sum(1) / real.sum(1, keepdim=True), dim=-1)
    error = ((model.mmse_head(tokens[:, 1])[:, 0] - scores / model.config.mmse_divisor) ** 2).mean()
    return model.config.mmse_weight * error - model.scale() * (tokens[:, 0] * text).sum(-1).mean()


def image_tokens(model: Any, clip: Any, volumes: Tensor) -> Tensor:
    """All tokens [B, 2 + p + N, w] behind the tower's norm."""
    encoder, b, n = clip.vision_encoder, len(volumes), model.config.n_prompts
    placed = encoder.embed(volumes)[:, 1:]
    x = torch.cat([model.cls_token.expand(b, -1, -1), model.mmse_token.expand(b, -1, -1), placed], dim=1)
    for layer, block in enumerate(encoder.blocks):
        if layer < len(model.visual_prompts):
            prompts = model.visual_prompts[layer].expand(b, -1, -1)
            x = torch.cat([x[:, :2], prompts, x[:, 2 if layer == 0 else 2 + n :]], dim=1)
        x = x + _attention(block.attn, block.norm1(x))
        x = x + block.mlp(block.norm2(x))
    normed: Tensor = encoder.norm(x)
    return normed


def text_tokens(model: Any, clip: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unit tokens [B, m + T, e] of reports with the text prompts in front, and which are no padding."""
    bert = clip.language_encoder
    real = (ids != bert.config.pad_token_id).float()
    real = torch.cat([real.new_ones(len(ids), model.config.n_text_prompts), real], dim=1)
    x = torch.cat([model.text_prompts.expand(len(ids), -1, -1), bert.embeddings(ids)], dim=1)
    mask = (1 - real)[:, None, None] * torch.finfo(x.dtype).min
    for layer in bert.encoder.layer:
        attention, heads = layer.attention.self, bert.config.num_attention_heads
        q, k, v = (_heads(part(x), heads) for part in (attention.query, attention.key, attention.value))
        weights = (q @ k.mT / q.shape[-1] ** 0.5 + mask).softmax(-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        x = layer.attention.output.LayerNorm(x + layer.attention.output.dense(attended))
        x = layer.output.LayerNorm(x + layer.output.dense(layer.intermediate(x)))
    return F.normalize(model.text_proj(x), dim=-1), real


def _attention(attn: Any, x: Tensor) -> Tensor:
    q, k, v = (_heads(part, attn.heads) for part in attn.qkv(x).chunk(3, dim=-1))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    attended: Tensor = attn.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return attended


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
