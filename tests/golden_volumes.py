"""The golden cases of the backbone over volumes and of the method on it: where they are, and the backbone of each."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from clinprompt.backbones.m3d import M3DClip, M3DSizes

ROOT = Path(os.environ.get("CLINPROMPT_GOLDEN_VOLUMES", Path(__file__).parents[2] / "shared" / "golden-volumes"))
CASES = sorted(path.parent for path in ROOT.glob("*/case.json"))
BACKBONE, METHOD = "M3D-CLIP", "DEFT-VLM-AD"
WHY_NOT = f"no golden cases at {ROOT}; set CLINPROMPT_GOLDEN_VOLUMES to their folder"


def record_of(folder: Path) -> dict[str, Any]:
    """What a case says of itself."""
    record: dict[str, Any] = json.loads((folder / "case.json").read_text())
    assert record["method"] in (BACKBONE, METHOD), f"{folder} is a kind of case that the tests do not know"
    return record


def cases_of(method: str | None = None) -> list[Any]:
    """The folders, of one method or of all, as parameters of a test; without any, one that is skipped."""
    found = [path for path in CASES if method is None or record_of(path)["method"] == method]
    return [pytest.param(path, id=path.name) for path in found] or [
        pytest.param(None, marks=pytest.mark.skip(reason=WHY_NOT))
    ]


def backbone_of(folder: Path) -> M3DClip:
    """The case's M3D-CLIP with its weights."""
    config = json.loads((folder / "model_config.json").read_text())
    sizes = M3DSizes(
        channels=config["in_channels"], volume=tuple(config["img_size"]), patch=tuple(config["patch_size"]),
        width=config["hidden_size"], mlp=config["mlp_dim"], layers=config["num_layers"], heads=config["num_heads"],
    )  # fmt: skip
    model = M3DClip(sizes, BertModel(BertConfig(**json.loads((folder / "bert/config.json").read_text()))))
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    return model.eval()
