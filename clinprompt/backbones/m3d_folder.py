"""A folder of M3D-CLIP: its config, its weights, and the config and vocabulary of its text tower in `bert`."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinprompt.backbones.folder import TOKENIZER_FILES, check_tokenizer
from clinprompt.backbones.m3d import M3DClip, M3DSizes
from clinprompt.data.volumes import VolumePreprocessing, three_sides
from clinprompt.errors import InputCorrupt
from clinprompt.files import read_json

CONFIG = "config.json"
TEXT = "bert"
_KIND = "m3d_clip"
_POSITION_IDS = ".position_ids"  # a buffer that older checkpoints of BERT hold
_CONTEXT = 512


@dataclass(frozen=True)
class M3DFolder:
    """The files of a folder, as far as they are small: the weights are read by `build`."""

    folder: Path
    config: dict[str, Any]
    text_config: dict[str, Any]

    @property
    def preprocessing(self) -> VolumePreprocessing:
        """As the model was trained: M3D-CLIP on the foreground, stretched to its grid, in 0…1.

        A config may say otherwise by `spacing` (three sides of a voxel in millimetres) and `intensity`.

        Raises:
            InputCorrupt: the config says it in a way that can't be read.
        """
        try:
            return VolumePreprocessing(
                volume=_three(self.config["img_size"]),
                intensity=self.config.get("intensity", "min_max"),
                spacing=three_sides(self.config.get("spacing")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputCorrupt(f"{self.folder / CONFIG}: no preprocessing can be read from it: {error}.") from None

    @property
    def files(self) -> list[str]:
        """Names of the small files that are there."""
        text = [f"{TEXT}/{name}" for name in (CONFIG, *TOKENIZER_FILES) if (self.folder / TEXT / name).is_file()]
        return [CONFIG, *text]

    @property
    def sizes(self) -> M3DSizes:
        """The sizes of the tower for volumes.

        Raises:
            InputCorrupt: the config does not tell them.
        """
        config = self.config
        try:
            return M3DSizes(
                channels=int(config["in_channels"]),
                volume=_three(config["img_size"]),
                patch=_three(config["patch_size"]),
                width=int(config["hidden_size"]),
                mlp=int(config["mlp_dim"]),
                layers=int(config["num_layers"]),
                heads=int(config["num_heads"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._no_model(error) from None

    def check_tokenizer(self) -> None:
        """Whether the files of a tokenizer are there.

        Raises:
            InputMissing: they are not.
        """
        check_tokenizer(self.folder / TEXT)

    def build(self, weights: Path) -> M3DClip:
        """The model with its weights.

        Raises:
            InputCorrupt: they are not those of the model in the config.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel

        sizes = self.sizes
        try:
            model = M3DClip(sizes, BertModel(BertConfig(**self.text_config)))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise self._no_model(error) from None
        try:
            if weights.suffix == ".safetensors":
                state = load_file(weights)
            else:
                state = torch.load(weights, map_location="cpu", weights_only=True)
            state = {name: tensor.float() for name, tensor in state.items() if not name.endswith(_POSITION_IDS)}
            model.load_state_dict(state, strict=True)
        except (RuntimeError, KeyError, AttributeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputCorrupt(f"{weights} does not hold the weights of the model in {CONFIG}: {reason}.") from None
        return model

    def tokenizer(self) -> Any:
        """The tokeniser, which gives as many ids as the text tower was trained with.

        Raises:
            InputCorrupt: its files can't be read.
        """
        from open_clip.tokenizer import HFTokenizer

        text = self.folder / TEXT
        length = int(self.config.get("max_text_len", _CONTEXT))
        try:
            return HFTokenizer(str(text), length, local_files_only=True)
        except (ValueError, OSError, KeyError) as error:
            raise InputCorrupt(f"{text}: the tokenizer's files can't be read: {error}.") from None

    def _no_model(self, error: Exception) -> InputCorrupt:
        return InputCorrupt(f"{self.folder / CONFIG}: no M3D-CLIP can be built from it: {error}.")


def open_m3d(folder: Path) -> M3DFolder | None:
    """The folder's small files; None where it is not one of M3D-CLIP.

    Raises:
        InputMissing, InputCorrupt: the config of its text tower is missing, or a config can't be read.
    """
    if not (folder / CONFIG).is_file():
        return None
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("model_type") != _KIND:
        return None
    return M3DFolder(folder, config, read_json(folder / TEXT / CONFIG))


def _three(sides: Any) -> tuple[int, int, int]:
    depth, height, width = (int(side) for side in sides)
    return depth, height, width
