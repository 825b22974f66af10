"""MedMNIST files: read as they are published, and refused in a sentence when they are broken."""

import io
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ingest_workspace import Workspace, refused
from PIL import Image

from clinprompt.data.card import Card
from clinprompt.data.layouts.npz import MedmnistOptions, read
from clinprompt.data.load import load_card
from clinprompt.errors import ClinpromptError, InputCorrupt

_CENTRAL = b"PK\x01\x02"  # begins a file's entry in a zip archive's directory


def test_medmnist(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, n in {"train": 12, "val": 4, "test": 6}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    file = place.root / "toy.npz"
    np.savez(file, **arrays)
    place.card(reader={"kind": "medmnist"}, path="toy.npz")
    assert place.ingest() == 0
    frame = place.manifest()
    assert frame["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 6}
    for i in (0, 5):
        row = frame[frame["path"] == f"test/0000{i}.png"].iloc[0]
        pixels = np.asarray(Image.open(place.folder / "out" / "images" / row["file"]))
        assert np.array_equal(pixels, arrays["test_images"][i])
        assert row["label"] == ["none", "glioma"][i % 2]
    shutil.rmtree(place.folder / "out")
    capsys.readouterr()
    np.savez(file, **{k: v for k, v in arrays.items() if k != "val_labels"})
    refused(place, capsys, 65, "no array 'val_labels'")
    np.savez(file, **(arrays | {"val_images": np.array([{}], dtype=object)}))
    refused(place, capsys, 67, "not a readable .npz file of plain arrays")
    np.savez(file, **(arrays | {"val_labels": np.zeros((4, 3), np.uint8)}))
    refused(place, capsys, 65, "val_labels must be whole numbers, one for each of the 4 images")
    np.savez(file, **(arrays | {"test_images": np.zeros((6, 3, 3, 3, 3), np.uint8)}))
    refused(place, capsys, 65, "test_images must be uint8")
    file.write_bytes(b"PK nonsense")
    refused(place, capsys, 67, "not a readable .npz file")


def small_npz() -> bytes:
    """A whole file of three images per split."""
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.full((3, 4, 4), 7, np.uint8)
        arrays[f"{split}_labels"] = np.arange(3)[:, None] % 2
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def with_header(shape: str) -> bytes:
    """An archive whose images claim another shape, with checksums made to fit."""
    told = b"(3, 4, 4), }"
    claimed = f"{shape}, }}".encode().ljust(len(told))
    source, target = io.BytesIO(small_npz()), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(told.ljust(len(claimed)), claimed))
    return target.getvalue()


def patched(offset: int, value: int) -> bytes:
    """The archive with a 16-bit number of its first entry in the directory changed."""
    data = bytearray(small_npz())
    struct.pack_into("<H", data, data.index(_CENTRAL) + offset, value)
    return bytes(data)


@pytest.fixture
def card(place: Workspace) -> Card:
    return load_card(place.folder / "toy.yaml")


def bare() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        bare(),
        b"",
        small_npz()[:200],
        patched(10, 99),  # an unknown compression
        patched(6, 250),  # an unknown version of zip
        patched(8, 1),  # encrypted
        with_header("(3, 4, 9)"),
        with_header("(9999999999999, 4, 4)"),
        with_header("(-3, 4, 4)"),
        with_header("(3, 4, 4"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path: Path, card: Card, data: bytes) -> None:
    file = tmp_path / "broken.npz"
    file.write_bytes(data)
    with pytest.raises(InputCorrupt, match=r"broken\.npz is not a readable \.npz file of plain arrays \(.+\)\.$"):
        read(file, card, MedmnistOptions())


def test_any_damage_is_read_or_refused(tmp_path: Path, card: Card) -> None:
    whole, file = small_npz(), tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.choice([0, 57, 255, rng.integers(256)])
        file.write_bytes(data)
        try:
            records = read(file, card, MedmnistOptions()).records
        except ClinpromptError:
            continue
        assert len(records) == 9
