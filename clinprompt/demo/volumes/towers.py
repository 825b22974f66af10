"""Folders in M3D-CLIP's layout: configs, tokenizer and weights; the sizes of `demo-m3d`, and the published ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from clinprompt.backbones.m3d import M3DClip, M3DSizes
from clinprompt.data.volumes import VolumePreprocessing
from clinprompt.demo.towers import word_pieces
from clinprompt.files import atomic, write_json

WEIGHTS = "model.safetensors"
VOLUME = (48, 56, 48)
SPACING = (3.5, 3.5, 3.5)  # millimetres: the grid is 168 x 196 x 168 mm, and holds a head
TOKENS = 96  # of a text: a report of six volumes needs about 80
_VOCABULARY = Path(__file__).with_name("vocabulary.txt")


@dataclass(frozen=True)
class TextSizes:
    """The sizes of a BERT.

    Attributes:
        vocabulary: how many tokens have an embedding; None: as many as the tokenizer knows.
        context: tokens of a text at most; `positions` leaves room for prompts beside them.
    """

    vocabulary: int | None = None
    width: int = 128
    mlp: int = 384
    layers: int = 2
    heads: int = 4
    context: int = TOKENS
    positions: int = 192


@dataclass(frozen=True)
class Preset:
    """Both towers' sizes, and how volumes are prepared."""

    sizes: M3DSizes
    text: TextSizes
    preprocessing: VolumePreprocessing


SIZES = M3DSizes(channels=1, volume=VOLUME, patch=(8, 8, 8), width=128, mlp=384, layers=4, heads=8)
PREPROCESSING = VolumePreprocessing(VOLUME, intensity="z_score", spacing=SPACING)
DEMO = Preset(SIZES, TextSizes(), PREPROCESSING)
PUBLISHED = Preset(
    M3DSizes(),
    TextSizes(vocabulary=30522, width=768, mlp=3072, layers=12, heads=12, context=512, positions=512),
    VolumePreprocessing(M3DSizes().volume),
)


def make_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer over words of captions and reports, single letters, and numbers by pairs of digits."""
    return word_pieces(_VOCABULARY, "[CLS]", "[SEP]")


def text_config(sizes: TextSizes) -> dict[str, Any]:
    """Hugging Face's config of the text tower."""
    return {
        "model_type": "bert",
        "vocab_size": sizes.vocabulary or make_tokenizer().get_vocab_size(),
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.mlp,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }


def initial_model(preset: Preset, seed: int) -> M3DClip:
    """The model with the initial weights that a seed gives."""
    torch.manual_seed(seed)
    return M3DClip(preset.sizes, BertModel(BertConfig(**text_config(preset.text)), add_pooling_layer=True))


def write_files(folder: Path, preset: Preset) -> None:
    """Write configs and tokenizer to `folder`: all but the weights."""
    text = folder / "bert"
    text.mkdir(parents=True, exist_ok=True)
    make_tokenizer().save(str(text / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": preset.text.context}
    write_json(text / "tokenizer_config.json", special | names)
    write_json(text / "config.json", text_config(preset.text))
    sizes, preprocessing = preset.sizes, preset.preprocessing
    config = {
        "model_type": "m3d_clip",
        "in_channels": sizes.channels,
        "img_size": list(sizes.volume),
        "patch_size": list(sizes.patch),
        "hidden_size": sizes.width,
        "mlp_dim": sizes.mlp,
        "num_layers": sizes.layers,
        "num_heads": sizes.heads,
        "max_text_len": preset.text.context,
    }
    if preprocessing.spacing is not None:
        config["spacing"] = list(preprocessing.spacing)
    write_json(folder / "config.json", config | {"intensity": preprocessing.intensity})


def save(model: M3DClip, folder: Path) -> None:
    """Write the weights."""
    state = {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(folder / WEIGHTS) as partial:
        save_file(state, partial)
