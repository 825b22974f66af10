"""The folder of `demo-m3d`: configs, tokenizer and weights, in the layout of M3D-CLIP's."""

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
SIZES = M3DSizes(channels=1, volume=VOLUME, patch=(8, 8, 8), width=128, mlp=384, layers=4, heads=8)
PREPROCESSING = VolumePreprocessing(VOLUME, intensity="z_score", spacing=SPACING)
TOKENS = 96  # of a text: a report of six volumes needs about 80
_POSITIONS = 192  # room for prompts beside them
_VOCABULARY = Path(__file__).with_name("vocabulary.txt")


def make_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer over words of captions and reports, single letters, and numbers by pairs of digits."""
    return word_pieces(_VOCABULARY, "[CLS]", "[SEP]")


def text_config(vocabulary: int) -> dict[str, Any]:
    """Hugging Face's config of the text tower."""
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": _POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }


def write_folder(folder: Path, seed: int) -> M3DClip:
    """Write configs and tokenizer to `folder`, and return the model with initial weights."""
    text = folder / "bert"
    text.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(text / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": TOKENS}
    write_json(text / "tokenizer_config.json", special | names)
    config = text_config(tokenizer.get_vocab_size())
    write_json(text / "config.json", config)
    write_json(
        folder / "config.json",
        {
            "model_type": "m3d_clip",
            "in_channels": SIZES.channels,
            "img_size": list(SIZES.volume),
            "patch_size": list(SIZES.patch),
            "hidden_size": SIZES.width,
            "mlp_dim": SIZES.mlp,
            "num_layers": SIZES.layers,
            "num_heads": SIZES.heads,
            "max_text_len": TOKENS,
            "spacing": list(SPACING),
            "intensity": PREPROCESSING.intensity,
        },
    )
    torch.manual_seed(seed)
    return M3DClip(SIZES, BertModel(BertConfig(**config), add_pooling_layer=True))


def save(model: M3DClip, folder: Path) -> None:
    """Write the weights."""
    state = {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(folder / WEIGHTS) as partial:
        save_file(state, partial)
