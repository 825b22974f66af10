"""The sizes of a backbone's towers as files declare them, for checks before its weights are there. Needs no torch."""

from math import prod
from pathlib import Path
from typing import Any

from clinprompt.backbones.table import CONFIG, TABLE, DeclaredSizes, entry_of
from clinprompt.errors import ClinpromptError
from clinprompt.files import read_json

VOLUMES, TEXT = "config.json", "bert"  # in a folder of M3D-CLIP: its config, and that of its text tower in here


def declared_sizes(name: str, path: str | None = None, *, table: Path = TABLE) -> DeclaredSizes:
    """What the table says of a backbone, or else the config in its folder; sizes that neither tells are None.

    Raises:
        BadParams: a name that is not in the table, and no path.
    """
    entry = entry_of(name, path, table)
    if entry is not None and entry.sizes is not None:
        return entry.sizes
    folder = Path(path) if path is not None else table.parent / str(entry and entry.folder)
    try:
        if (folder / VOLUMES).is_file() and not (folder / CONFIG).is_file():
            return _of_volumes(read_json(folder / VOLUMES), read_json(folder / TEXT / VOLUMES))
        return _of_config(read_json(folder / CONFIG)["model_cfg"])
    except (ClinpromptError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return DeclaredSizes()  # what is wrong with the folder is said where it is loaded


def _of_config(model: dict[str, Any]) -> DeclaredSizes:
    """Of open_clip's own towers; those of timm and Hugging Face keep theirs elsewhere."""
    text, vision = model["text_cfg"], model["vision_cfg"]
    context = text.get("context_length")
    own_text, own_image = "hf_model_name" not in text, "timm_model_name" not in vision
    layers, side, patch = vision.get("layers"), vision.get("image_size"), vision.get("patch_size")
    plain = own_image and isinstance(layers, int) and isinstance(side, int) and isinstance(patch, int)
    return DeclaredSizes(
        tokens=context,
        positions=context if own_text else None,
        text_blocks=text.get("layers") if own_text else None,
        image_blocks=layers if plain else None,
        patches=(side // patch) ** 2 if plain else None,
        patch=patch if plain else None,
    )


def _of_volumes(model: dict[str, Any], text: dict[str, Any]) -> DeclaredSizes:
    """Of M3D-CLIP's towers; a patch's last side is that along a row."""
    grid = [side // step for side, step in zip(model["img_size"], model["patch_size"], strict=True)]
    return DeclaredSizes(
        tokens=model.get("max_text_len"),
        positions=text["max_position_embeddings"],
        text_blocks=text["num_hidden_layers"],
        image_blocks=model["num_layers"],
        patches=prod(grid),
        patch=model["patch_size"][-1],
    )
