"""A folder of open_clip: its config, the model that it builds, and how that sees pictures."""

import json
import pickle
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from clinprompt.backbones.folder import offline
from clinprompt.backbones.table import CONFIG
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import read_json

_SIDE, _PREPROCESSING = "image_size", ("mean", "std", "interpolation", "resize_mode")


def read_config(folder: Path) -> dict[str, Any]:
    """Its config: `model_cfg`, and `preprocess_cfg`, which may be empty.

    Raises:
        InputMissing, InputCorrupt: it is not there, or is no config of open_clip.
    """
    path = folder / CONFIG
    config = read_json(path)
    model = config.get("model_cfg") if isinstance(config, dict) else None
    if not (isinstance(model, dict) and {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys()):
        raise InputCorrupt(f"{path}: expected model_cfg with embed_dim, vision_cfg and text_cfg, as open_clip writes.")
    return {"model_cfg": model, "preprocess_cfg": config.get("preprocess_cfg") or {}}


def build(folder: Path, model_cfg: dict[str, Any], text: dict[str, Any] | None, weights: Path) -> tuple[Any, Any]:
    """The model with its weights, and its tokenizer.

    Args:
        text: the Hugging Face config of the text tower, where it has one.

    Raises:
        InputCorrupt: the config is no model's, or the weights or the tokenizer's files don't fit it.
    """
    with offline(), tempfile.TemporaryDirectory() as scratch:
        model = _model(folder, model_cfg, text, Path(scratch))
        _load_weights(model, weights)
        return model, _tokenizer(folder, model_cfg)


def preprocessing_of(folder: Path, config: dict[str, Any]) -> Preprocessing:
    """How the model sees pictures.

    Raises:
        BadParams: in a way that is not supported.
    """
    told = {key: value for key, value in config["preprocess_cfg"].items() if value is not None}
    told |= {key: config["model_cfg"]["vision_cfg"][key] for key in {_SIDE} & config["model_cfg"]["vision_cfg"].keys()}
    options = told if {_SIDE, *_PREPROCESSING} <= told.keys() else _defaults() | told
    height, width = side if isinstance(side := options[_SIDE], list | tuple) else (side, side)
    if height != width:
        raise BadParams(f"{folder / CONFIG}: square images are supported, found {height} x {width} pixels.")
    try:
        return Preprocessing(
            size=int(height),
            mean=_triple(options["mean"]),
            std=_triple(options["std"]),
            interpolation=options["interpolation"],
            resize_mode=options["resize_mode"],
        )
    except ValueError as error:
        raise BadParams(f"{folder / CONFIG}: preprocess_cfg: {error}.") from None


def _model(folder: Path, model_cfg: dict[str, Any], text: dict[str, Any] | None, scratch: Path) -> Any:
    from open_clip import CLIP, CustomTextCLIP

    cfg = deepcopy(model_cfg)
    custom = cfg.pop("custom_text", False)
    if "timm_model_name" in cfg["vision_cfg"]:
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    if text is not None:
        custom = True
        (scratch / "config.json").write_text(json.dumps(text), encoding="utf-8")
        cfg["text_cfg"] |= {"hf_model_name": str(scratch), "hf_model_pretrained": False}
    try:
        return CustomTextCLIP(**cfg) if custom else CLIP(**cfg)
    except (TypeError, ValueError, KeyError, RuntimeError, OSError) as error:
        raise InputCorrupt(f"{folder / CONFIG}: open_clip can't build this model: {_one_line(error)}.") from None


def _load_weights(model: Any, weights: Path) -> None:
    from open_clip import load_checkpoint
    from safetensors import SafetensorError

    try:
        load_checkpoint(model, str(weights), weights_only=True)
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputCorrupt(
            f"{weights} does not hold the weights of the model in {CONFIG}: {_one_line(error)}."
        ) from None


def _tokenizer(folder: Path, model_cfg: dict[str, Any]) -> Any:
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    text = model_cfg["text_cfg"]
    length = text.get("context_length") or DEFAULT_CONTEXT_LENGTH
    options = text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        return SimpleTokenizer(context_length=length, **options)
    mode = text.get("tokenizer_mode")
    try:
        return HFTokenizer(str(folder), length, tokenizer_mode=mode, local_files_only=True, **options)
    except (ValueError, OSError, KeyError) as error:
        raise InputCorrupt(f"{folder}: the tokenizer's files can't be read: {_one_line(error)}.") from None


def _defaults() -> dict[str, Any]:
    """What open_clip takes where a config says nothing."""
    from open_clip import CLIPVisionCfg
    from open_clip.transform import PreprocessCfg

    default = PreprocessCfg()
    return {_SIDE: CLIPVisionCfg().image_size} | {key: getattr(default, key) for key in _PREPROCESSING}


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= 300 else f"{text[:300]} …"
