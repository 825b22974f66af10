"""Ingest when a card is no file, a disk has no room for a file, or knobs are absurd: a sentence and its code."""

import io
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ingest_workspace import Workspace, refused

from clinprompt.data.card import Card
from clinprompt.data.layouts.npz import MedmnistOptions, read
from clinprompt.data.load import load_card
from clinprompt.errors import InputCorrupt


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_a_card_that_is_no_file_is_refused(place: Workspace, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    card = place.folder / "toy.yaml"
    card.unlink()
    if kind == "folder":
        card.mkdir()
    elif kind == "link":
        card.symlink_to(card)
    else:
        os.mkfifo(card)
    assert place.ingest() in (64, 66)  # a link to itself exists for nobody
    assert str(card) in capsys.readouterr().err


BOMB = "[&n0 [x], " + ", ".join(f"&n{k + 1} [{', '.join([f'*n{k}'] * 9)}]" for k in range(9)) + "]"


@pytest.mark.parametrize("title", ["2024-13-45", "9" * 5000, "[" * 2000 + "]" * 2000, BOMB], ids=range(4))
def test_a_card_with_an_impossible_title_is_bad_params(
    place: Workspace, capsys: pytest.CaptureFixture[str], title: str
) -> None:
    card = place.folder / "toy.yaml"
    card.write_text(f"{card.read_text()}\nnote: {title}\n")
    assert place.ingest() == 64
    assert "toy.yaml is not valid YAML" in capsys.readouterr().err


def test_a_limit_on_the_size_of_files_is_a_sentence(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    place.published()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        refused(place, capsys, 75, "a file would become larger than is allowed", "raise the limit")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.ingest() == 0


@pytest.fixture
def card(place: Workspace) -> Card:
    return load_card(place.folder / "toy.yaml")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_only_has_the_name_of_an_npz_file_is_refused(tmp_path: Path, card: Card, kind: str) -> None:
    file = tmp_path / "toy.npz"
    file.mkdir() if kind == "folder" else os.mkfifo(file)
    with pytest.raises(InputCorrupt, match="is not an .npz file, but a folder, a pipe"):
        read(file, card, MedmnistOptions())


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_file_in_a_compression_that_numpy_does_not_write_is_refused(
    tmp_path: Path, card: Card, compression: int
) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((2, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "toy.npz", "w", compression) as archive:
        archive.writestr("train_images.npy", array.getvalue())
    with pytest.raises(InputCorrupt, match="compressed in a way that NumPy does not write"):
        read(tmp_path / "toy.npz", card, MedmnistOptions())
