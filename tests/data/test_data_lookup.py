"""The command that tells the file behind an image's id."""

import shutil
from pathlib import Path

import pytest
from ingest_workspace import Workspace

from clinprompt.data.lookup import main


def test_the_files_of_an_id_are_told(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.published()
    shutil.copy(place.data / "train/none/0.png", place.data / "test/glioma/again.png")
    assert place.ingest() == 0
    monkeypatch.chdir(place.folder)
    Path("runs/toy").mkdir(parents=True)
    Path("runs/toy/ingest").symlink_to(place.folder / "out")
    rows = place.manifest().set_index("path")
    image = rows.loc["train/none/0.png", "id"]
    capsys.readouterr()
    assert main(["toy", image[:12].upper()]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{image[:12]}\ttest\tglioma\ttest/glioma/again.png",
        f"{image[:12]}\ttrain\tnone\ttrain/none/0.png",
    ]
    assert main(["toy", image]) == 0
    assert capsys.readouterr().out.startswith(f"{image}\t")


def test_an_unknown_id_and_a_run_that_is_not_there_are_said(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    place.published()
    assert place.ingest() == 0
    capsys.readouterr()
    manifest = str(place.folder / "out" / "manifest.parquet")
    assert main(["toy", "xyz", "--manifest", manifest]) == 66
    assert "no image whose id begins with 'xyz'" in capsys.readouterr().err
    assert main(["toy", "abc", "--manifest", str(place.folder / "none.parquet")]) == 66
    assert main(["toy"]) == 64
