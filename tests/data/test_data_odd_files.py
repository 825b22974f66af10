"""Ingest when a card is no file, a disk has no room for a file, or knobs are absurd: a sentence and its code."""

import os
import resource

import pytest
from ingest_workspace import Workspace, refused

from clinprompt.data.codecs import MAX_PIXELS
from clinprompt.params import ValidationParams


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_a_card_that_is_no_file_is_missing(place: Workspace, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    card = place.folder / "toy.yaml"
    card.unlink()
    if kind == "folder":
        card.mkdir()
    elif kind == "link":
        card.symlink_to(card)
    else:
        os.mkfifo(card)
    assert place.ingest() == 66
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


def test_the_most_pixels_that_params_may_allow_are_those_that_are_decoded() -> None:
    (bound,) = [m.le for m in ValidationParams.model_fields["max_pixels"].metadata if hasattr(m, "le")]
    assert bound == MAX_PIXELS
