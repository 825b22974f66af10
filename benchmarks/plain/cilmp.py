"""CILMP's forward pass without any of the shortcuts, laid out as the released trainer does it.

Image by image and row by row, rows of the language model's width for every image and class, whole contexts, whole
blocks. It reads the parameters of a `CILMP` and gives what its `features` gives.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def features(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit features of images [B, e] and classes [B, C, e] for pixels [B, 3, S, S]; needs a CLIP image tower."""
    v = F.normalize(image_features(model, pixels), dim=-1)
    return v, F.normalize(text_features(model, v), dim=-1)


def image_features(model: Any, pixels: Tensor) -> Tensor:
    """Features [B, e] with visual prompts behind the patches, replaced before each of the first blocks."""
    visual, prompts = model.backbone.model.visual, model.visual_prompts
    if not len(prompts):
        return visual(pixels)
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    n = len(prompts[0])
    x = visual.ln_pre(torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1))
    for layer, block in enumerate(visual.transformer.resblocks):
        if 1 <= layer < len(prompts):
            x = torch.cat([x[:, :-n], prompts[layer].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return visual.ln_post(x)[:, 0] @ visual.proj


def text_features(model: Any, v: Tensor) -> Tensor:
    """Features [B, C, e], not normalised, for unit image features v [B, e]."""
    states = list(model.states.split([int(n) for n in model.states_per_class]))
    return torch.stack([_texts_of_one_image(model, states, v[b]) for b in range(len(v))])


def _texts_of_one_image(model: Any, states: list[Tensor], v: Tensor) -> Tensor:
    start, name = model.prompts.around()
    n, first = model.config.n_ctx, _row_prompts(model, 0, states, v)
    sequences = []
    for c, prompts in enumerate(first):
        x = torch.cat([start[c], model.ctx, prompts, name[c]])
        padded = torch.cat([x, x.new_zeros(max(model.tower.context - len(x), 0), x.shape[1])])
        sequences.append(padded[: model.tower.context])
    lengths = model.tower.real_length(model.prompts.ids) + torch.tensor([len(class_states) for class_states in states])
    x, forward, end = _opened(model, torch.stack(sequences), lengths)
    for layer in range(len(model.blocks)):
        if 1 <= layer < model.text_depth:
            deep = _row_prompts(model, layer, states, v)
            replaced = []
            for c, prompts in enumerate(deep):
                behind = x[c, 1 + n + len(prompts) :]
                replaced.append(torch.cat([x[c, :1], model.text_prompts[str(layer)], prompts, behind]))
            x = torch.stack(replaced)
        x = forward(layer, x)
    return model.tower.project(torch.stack([x[c, end[c]].mean(0) for c in range(len(x))]))


def _row_prompts(model: Any, layer: int, states: list[Tensor], v: Tensor) -> list[Tensor]:
    """The prompts of one layer [L_c, d] of each class, for one image's unit feature v [e]."""
    module, config = model.text_layers[layer], model.config
    prompts = []
    for rows in states:
        intervened = []
        for row, h in enumerate(rows):
            if row < config.prefix_length:
                intervened.append(_intervened(module.prefix, h, v))
            elif row >= len(rows) - config.suffix_length:
                intervened.append(_intervened(module.suffix, h, v))
            else:
                intervened.append(h)
        prompts.append(torch.stack(intervened) @ module.lora_A.T @ module.lora_B.T)
    return prompts


def _intervened(module: Any, h: Tensor, v: Tensor) -> Tensor:
    """Φ(h, v) [D], as the paper writes it."""
    g = module.image_up(module.image_down(v))
    return h + module.R @ (module.W @ torch.cat([h, g * h]) + module.b - module.R.T @ h)


def _opened(model: Any, x: Tensor, lengths: Tensor) -> tuple[Tensor, Any, list[slice]]:
    """The text tower: placed embeddings, its blocks' own forward, and the rows whose mean is read for each class."""
    text = getattr(model.backbone.model, "text", model.backbone.model)
    positions = torch.arange(x.shape[1])
    if model.tower.causal:
        blocks, mask = text.transformer.resblocks, text.attn_mask
        return (
            x + text.positional_embedding[positions],
            lambda layer, x: blocks[layer](x, attn_mask=mask),
            [slice(n - 1, n) for n in lengths.tolist()],
        )
    seen = (positions < lengths[:, None])[:, None, None].expand(-1, 1, len(positions), -1)
    layers = text.transformer.encoder.layer
    placed = model.tower.place(x, positions)
    means = type(text.pooler).__name__ == "MeanPooler"
    read = [slice(0, n if means else 1) for n in lengths.tolist()]
    return placed, lambda layer, x: _first(layers[layer](x, attention_mask=seen)), read


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
