"""Damaged cards, tables and `.npz` files: read, or refused with a sentence."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mutations import call_all, damaged
from PIL import Image

from clinprompt.data.card import Card
from clinprompt.data.columns import COLUMNS
from clinprompt.data.layouts import npz, table
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest, write_manifest
from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing
from clinprompt.parquet import read_frame

CARD = {
    "name": "toy",
    "title": "Two classes, 2020",
    "modality": "MRI",
    "organ": "brain",
    "classes": [
        {"id": "a", "name": "glioma", "phrase": "a brain MRI with a glioma", "aliases": ["Glioma", "1"]},
        {"id": "b", "name": "no tumor", "phrase": "a brain MRI without a tumor"},
    ],
    "licence": "CC0",
    "source": "made up",
    "how_to_get": "Ask.",
    "reader": {"kind": "table", "file": "list.csv", "path": "file", "label": "dx", "split": "fold"},
    "metadata": {"patient": "patient", "age": "age"},
    "split": {"rule": "stratified", "seed": 3, "fractions": {"train": 0.5, "val": 0.25, "test": 0.25}},
    "intensity": [0.5, 200],
    "methods": {"coop": {"epochs": 3, "learning_rate": 0.1}},
}
CARD_PARTS = (
    b"&a ", b"*a", b"{<<: *a}", b"[[[[[[[[", b"- - - - ", b"2024-13-45", b"9" * 5000, b"1" + b":59" * 400,
    b"0xfffffffff", b"1e400", b".nan", b"!!int x", b"!!binary =", b"!!set {a}", b'"\\ud800"', b'"\\U00110000"',
    b"\xff\xfe", b"? [a]\n: ", b"null", b"\t", b"\n---\n", b"%YAML 9.9\n", b"|+9\n", b"..", b"~", b"1" + b"0" * 30,
)  # fmt: skip


def inputs(whole: list[bytes], count: int, parts: tuple[bytes, ...] = ()) -> Iterator[bytes]:
    """Damaged bytes; every second time the damage is near the end, where Parquet and zip files have their tables."""
    for number in range(count):
        data = whole[number // 2 % len(whole)]
        backwards = tuple(part[::-1] for part in parts)
        yield damaged(data, number, parts) if number % 2 else damaged(data[::-1], number, backwards)[::-1]


def test_damaged_cards_are_loaded_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        load_card(path)

    flow = yaml.safe_dump(CARD, default_flow_style=True).encode()
    taken = call_all(load, inputs([yaml.safe_dump(CARD).encode(), flow], 1600, CARD_PARTS), (BadParams, InputMissing))
    assert 0 < taken < 1600


@pytest.fixture
def rows() -> pd.DataFrame:
    numbers = range(8)
    return pd.DataFrame(
        {
            "file": [f"{n}.png" for n in numbers],
            "dx": [["a", "b"][n % 2] for n in numbers],
            "fold": [["train", "val", "test", "train"][n % 4] for n in numbers],
            "patient": [f"p{n // 2}" for n in numbers],
            "age": [40.5 + n for n in numbers],
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_damaged_tables_are_listed_or_refused(tmp_path: Path, rows: pd.DataFrame, suffix: str) -> None:
    file = tmp_path / f"list.{suffix}"
    for name in rows["file"]:
        Image.new("L", (4, 4)).save(tmp_path / name)
    card = Card.model_validate(CARD)
    options = table.TableOptions(file=file.name, path="file", label="dx", split="fold")
    rows.to_csv(file, index=False) if suffix == "csv" else rows.to_parquet(file)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        table.read(tmp_path, card, options)

    parts = (b'"', b"\0", b"\r", b",,,", b"\xff", b"../", b"/", b"x" * 5000, b"nan", b"1e400")
    expected = (DataRejected, InputCorrupt, InputMissing, BadParams)
    taken = call_all(read, inputs([file.read_bytes()], 600, parts if suffix == "csv" else ()), expected)
    assert 0 < taken < 600


def test_damaged_manifests_and_descriptions_are_read_or_refused(tmp_path: Path, rows: pd.DataFrame) -> None:
    file = tmp_path / "manifest.parquet"
    frame = pd.DataFrame({name: None for name in COLUMNS}, index=range(len(rows)))
    frame = frame.assign(path=rows["file"], id=[f"{n:064x}" for n in range(len(rows))], file=rows["file"])
    frame = frame.assign(label=rows["dx"], split=rows["fold"], age=rows["age"]).fillna("x")
    write_manifest(frame, file)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        read_frame(file, ["id"], "validate")
        read_manifest(file)

    whole = file.read_bytes()
    read(whole)
    taken = call_all(read, inputs([whole], 600), (InputCorrupt, InputMissing))
    assert 0 < taken < 600


def test_damaged_npz_files_are_listed_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "toy.npz"
    whole = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        arrays = {}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
            arrays[f"{split}_labels"] = np.array([[0], [1], [0]])
        save(stream, **arrays)
        whole.append(stream.getvalue())
    card = Card.model_validate(CARD)

    def read(data: bytes) -> None:
        file.write_bytes(data)
        for record in npz.read(tmp_path / "toy.npz", card, npz.MedmnistOptions()).records:
            assert record.source() if callable(record.source) else record.source

    parts = (
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"\x93NUMPY",
        b"(99999999999, 9)",
        b"'|O'",
        b"'<u8'",
        b"True",
        b"((((" * 50,
    )
    taken = call_all(read, inputs(whole, 1200, parts), (InputCorrupt, DataRejected))
    assert 0 < taken < 1200
