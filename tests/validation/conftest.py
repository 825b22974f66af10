"""A healthy dataset to spoil."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_dataset import CLASSES, PER_CELL, Dataset, encode, picture


@pytest.fixture
def dataset(tmp_path: Path, root: Path) -> Dataset:
    """A healthy dataset."""
    classes = [{"id": c, "name": c, "phrase": f"a brain MRI with {c}"} for c in CLASSES]
    card = {"name": "demo", "title": "Demo", "modality": "MRI", "organ": "brain", "classes": classes}
    card |= {"licence": "CC0", "source": "made here", "how_to_get": "it is made", "reader": {"kind": "folder"}}
    made = Dataset(tmp_path, root, card=card)
    seed = 0
    for split in ("train", "val", "test"):
        for label in CLASSES:
            for number in range(PER_CELL + (2 if split == "train" else 0)):
                seed += 1
                made.put(f"{split}/{label}/{number}.png", encode(picture(seed)), split, label)
    return made


@pytest.fixture
def copy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Dataset], Dataset]:
    """Makes a second dataset with the same files, elsewhere."""

    def copy(one: Dataset) -> Dataset:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(one.folder / "images", folder / "images")
        return Dataset(folder, one.root, dict(one.rows), dict(one.card), dict(one.params))

    return copy
