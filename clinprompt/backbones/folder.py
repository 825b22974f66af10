"""A backbone's folder: which files make it, their digest together, and loading it without asking the hub."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinprompt.backbones.table import CONFIG, BackboneEntry
from clinprompt.errors import InputMissing
from clinprompt.files import read_json, sha256_bytes, sha256_file, to_json

# Of an open_clip folder and of one of M3D-CLIP; the first that is there counts.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
M3D_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def check_tokenizer(folder: Path) -> None:
    """Whether a folder holds a tokenizer.

    Raises:
        InputMissing: it does not.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputMissing(f"{folder} holds no tokenizer: expected tokenizer.json or vocab.txt.")


def weights_file(folder: Path, customary: Sequence[str], entry: BackboneEntry | None) -> Path:
    """The file with a folder's weights: the table's, or the first of the customary names that is there.

    Raises:
        InputMissing: there is none.
    """
    names = customary if entry is None else (entry.weights,)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputMissing(f"{folder} holds no weights: expected {' or '.join(names)}.")


def text_config(folder: Path, model_cfg: dict[str, Any], entry: BackboneEntry | None) -> dict[str, Any] | None:
    """The Hugging Face config of an open_clip folder's text tower; None where open_clip's own config is enough.

    Raises:
        InputMissing: neither the folder nor the table has it.
    """
    if not model_cfg["text_cfg"].get("hf_model_name"):
        return None
    if (folder / "config.json").is_file():
        config: dict[str, Any] = read_json(folder / "config.json")
        return config
    if entry is not None and entry.text_config is not None:
        return entry.text_config
    raise InputMissing(
        f"{folder} holds no config.json, which its text tower ({model_cfg['text_cfg']['hf_model_name']}) needs; "
        "copy it from that model's folder."
    )


def open_clip_digest(folder: Path, weights: str, text: dict[str, Any] | None) -> str:
    """SHA-256 over an open_clip folder's config and tokenizer, the SHA-256 of its weights, and `text_config`."""
    names = [CONFIG, *TOKENIZER_FILES]
    files = {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}
    return sha256_bytes(to_json({"files": files, "weights": weights, "text_config": text}).encode())


def m3d_digest(folder: Path, files: Sequence[str], weights: str) -> str:
    """SHA-256 over the small files of a folder of M3D-CLIP and the SHA-256 of its weights."""
    digests = {name: sha256_file(folder / name) for name in files}
    return sha256_bytes(to_json({"files": digests, "weights": weights}).encode())


@contextmanager
def offline() -> Iterator[None]:
    """Keep libraries from asking the hub inside the block, whatever the names in a config."""
    from huggingface_hub import constants

    previous = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = previous
