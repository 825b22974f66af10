"""A small real vision transformer, and a folder of images named by their digests."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.files import sha256_file

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def save_backbone(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    return folder


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone") / "one", 0)


@pytest.fixture(scope="session")
def backbone(backbone_folder: Path) -> Backbone:
    return load_backbone("own", backbone_folder)


@pytest.fixture(scope="session")
def other_backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone("own", save_backbone(tmp_path_factory.mktemp("backbone") / "two", 1))


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """42 PNG files of different shapes, grey and colour, by their SHA-256."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    files = {}
    for i in range(42):
        shape = (int(rng.integers(40, 120)), int(rng.integers(40, 120)), *((3,) if i % 3 else ()))
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
        digest = sha256_file(path)
        files[digest] = path.rename(folder / f"{digest}.png")
    return files
