"""Random backbones of any size, and their towers run the plain way: whole sequences, one image or class at a time."""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, EMBED, CONTEXT, VOCABULARY = 16, 12, 24, 64

Adapter = Callable[[int, Tensor], Tensor]


@cache
def random_model(kind: str, layers: int = 3, text_layers: int = 3, grid: int = 2, patch: int = 4) -> Any:
    """Towers far from small initial values.

    A CLIP ("clip"); timm's image tower with a BERT read out at its first token ("bert"); or open_clip's image tower as
    DINOv2's is (layer scale, no norm in front, another epsilon) with a BERT whose tokens' mean is read out ("mean").
    """
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(layers + 10 * text_layers)
        if kind == "clip":
            vision = {
                "image_size": grid * patch,
                "layers": layers,
                "width": WIDTH,
                "patch_size": patch,
                "head_width": 8,
            }
            text = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 24, "heads": 2, "layers": text_layers}
            model: Any = open_clip.CLIP(embed_dim=EMBED, vision_cfg=vision, text_cfg=text, quick_gelu=True)
        else:
            vision = (_timm if kind == "bert" else _scaled)(Path(folder), layers, grid, patch)
            text = _bert(Path(folder), text_layers, "cls_last_hidden_state" if kind == "bert" else "mean")
            model = open_clip.CustomTextCLIP(embed_dim=EMBED, vision_cfg=vision, text_cfg=text)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return model.eval().requires_grad_(False)


def _timm(folder: Path, layers: int, grid: int, patch: int) -> dict[str, Any]:
    sizes = {"img_size": grid * patch, "patch_size": patch, "embed_dim": WIDTH, "depth": layers, "num_heads": 2}
    trunk = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": sizes, "pretrained_cfg": {}}
    (folder / "timm").mkdir()
    (folder / "timm" / "config.json").write_text(json.dumps(trunk))
    return {
        "timm_model_name": f"local-dir:{folder}/timm", "timm_model_pretrained": False, "timm_pool": "",
        "timm_proj": "linear", "image_size": grid * patch,
    }  # fmt: skip


def _scaled(_folder: Path, layers: int, grid: int, patch: int) -> dict[str, Any]:
    return {
        "image_size": grid * patch, "layers": layers, "width": WIDTH, "patch_size": patch, "head_width": 8,
        "ls_init_value": 1.5, "no_ln_pre": True, "norm_kwargs": {"eps": 1e-6},
    }  # fmt: skip


def _bert(folder: Path, layers: int, pooler: str) -> dict[str, Any]:
    config = {
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": layers,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": CONTEXT, "pad_token_id": 0,
    }  # fmt: skip
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text(json.dumps(config))
    return {
        "hf_model_name": f"{folder}/bert", "hf_model_pretrained": False, "context_length": CONTEXT,
        "hf_pooler_type": f"{pooler}_pooler", "hf_proj_type": "linear" if pooler == "mean" else "mlp",
    }  # fmt: skip


class PlainImages:
    """The image tower of a random model on one image at a time."""

    def __init__(self, model: Any) -> None:
        self.visual = model.visual
        self.timm = hasattr(model.visual, "trunk")
        self.blocks = list(self.visual.trunk.blocks if self.timm else self.visual.transformer.resblocks)

    def tokens(self, image: Tensor) -> Tensor:
        """[1 + patches, w] of an image [3, S, S]: the class token first, positions added."""
        if self.timm:
            trunk = self.visual.trunk
            patches = trunk.patch_embed(image[None])[0]
            return torch.cat([trunk.cls_token[0], patches]) + trunk.pos_embed[0]
        patches = self.visual.conv1(image[None])[0].flatten(1).T
        return torch.cat([self.visual.class_embedding[None], patches]) + self.visual.positional_embedding

    def start(self, tokens: Tensor) -> Tensor:
        """What comes before the first block."""
        return tokens if self.timm else self.visual.ln_pre(tokens)

    def block(self, layer: int, x: Tensor, adapter: Adapter | None = None) -> Tensor:
        """A block's output [n, w]; an adapter sees the tokens behind the attention."""
        block = self.blocks[layer]
        if adapter is None:
            return block(x[None])[0]
        if self.timm:
            y = x + block.ls1(block.attn(block.norm1(x[None])))[0]
            return y + block.ls2(block.mlp(block.norm2(y))) + adapter(layer, y)
        y = x + block.ls_1(block.attention(block.ln_1(x[None])))[0]
        return y + block.ls_2(block.mlp(block.ln_2(y))) + adapter(layer, y)

    def finish(self, rows: Tensor) -> Tensor:
        """The feature [e] of the mean of some rows [r, w] of the last block."""
        if self.timm:
            return self.visual.head(self.visual.trunk.norm(rows).mean(0))
        return self.visual.ln_post(rows).mean(0) @ self.visual.proj

    def encode(
        self, tokens: Tensor, at: slice, later: Mapping[int, Tensor], noise: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """The feature [e] of tokens of which those `at` are replaced in front of some later blocks.

        `noise` spoils what a block gives for tokens that the next one replaces.
        """
        x, whole = self.start(tokens), range(len(tokens))
        for layer in range(len(self.blocks)):
            if layer in later:
                x = torch.cat([x[: at.start], later[layer], x[at.stop :]])
            x = self.block(layer, x)
            if noise is not None and layer + 1 in later:
                x = torch.stack([noise(x[i]) if i in whole[at] else x[i] for i in whole])
        return self.finish(x[:1])


def plain_text_feature(model: Any, ids: Tensor, ctx: Tensor, later: Mapping[int, Tensor]) -> Tensor:
    """The unit feature [e] of one sentence's ids [T] on the whole context, with vectors behind its start token.

    `later` holds the vectors that replace them in front of some later blocks.
    """
    n, clip = len(ctx), hasattr(model, "token_embedding")
    if clip:
        x = model.token_embedding(ids)
        x = torch.cat([x[:1], ctx, x[1 + n :]]) + model.positional_embedding
        for layer, block in enumerate(model.transformer.resblocks):
            x = torch.cat([x[:1], later[layer], x[1 + n :]]) if layer in later else x
            x = block(x[None], attn_mask=model.attn_mask)[0]
        return F.normalize(model.ln_final(x)[int(ids.argmax())] @ model.text_projection, dim=-1)
    bert = model.text.transformer
    x = bert.embeddings.word_embeddings(ids)
    x = bert.embeddings(inputs_embeds=torch.cat([x[:1], ctx, x[1 + n :]])[None])[0]
    hidden = torch.where(ids == 0, torch.finfo(x.dtype).min, 0.0)[None, None, None].expand(1, 1, len(ids), -1)
    for layer, block in enumerate(bert.encoder.layer):
        x = torch.cat([x[:1], later[layer], x[1 + n :]]) if layer in later else x
        out = block(x[None], attention_mask=hidden)
        x = (out[0] if isinstance(out, tuple) else out).reshape(len(ids), -1)
    means = type(model.text.pooler).__name__ == "MeanPooler"
    return F.normalize(model.text.proj(x[ids != 0].mean(0) if means else x[0]), dim=-1)


def pixels(n: int, model: Any, seed: int = 0) -> Tensor:
    """Random images [n, 3, S, S] of the model's size."""
    side = model.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def gradients(model: Any) -> dict[str, Tensor]:
    """A copy of each trained tensor's gradient, by name; tensors without elements have none."""
    return {name: p.grad.clone() for name, p in model.trainable_parameters().items() if p.grad is not None}


def assert_gradients_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Within 1e-4 of each tensor's largest gradient, and 1e-6."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = float((found[name] - gradient).abs().max())
        assert difference <= 1e-4 * float(gradient.abs().max()) + 1e-6, name
