"""Ingest through its component: one sentence for each kind of bad input, and nothing left behind."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ingest_workspace import Workspace, refused


def test_a_missing_root_tells_where_to_get_the_data(
    place: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(place.data)
    refused(place, capsys, 66, str(place.data), "Ask the toy maker.")
    monkeypatch.delenv("CLINPROMPT_DATA")
    refused(place, capsys, 66, "data.root", "CLINPROMPT_DATA", "Ask the toy maker.")
    assert not (place.folder / "data" / "toy").is_symlink()
    monkeypatch.setenv("CLINPROMPT_DATA", "/" + "x" * 300)
    refused(place, capsys, 66, "is not at /xxx")


def test_folders_that_are_no_class_and_loose_images(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    place.published()
    place.image("train/cyst/0.png")
    refused(place, capsys, 65, "train/cyst: 'cyst' is no class", "glioma, none", "aliases")
    shutil.rmtree(place.data / "train/cyst")
    place.image("extra/glioma/0.png")
    refused(place, capsys, 65, "extra: lies beside the split folders", "reader.splits")
    shutil.rmtree(place.data / "extra")
    place.image("train/loose.png")
    refused(place, capsys, 65, "train/loose.png: this image lies beside the class folders")


def test_no_image_an_empty_split_and_one_class(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    refused(place, capsys, 65, "holds no image")
    place.published()
    for split in ("train", "val", "test"):
        shutil.rmtree(place.data / split / "none")
    refused(place, capsys, 65, "All 9 images are of one class, 'glioma'")
    place.published()
    shutil.rmtree(place.data / "val")
    refused(place, capsys, 65, "The val split holds no image", "val_from_train")
    place.card(reader={"kind": "folder", "splits": {"train": "train", "val": "validate", "test": "test"}})
    refused(place, capsys, 66, "validate", "does not exist")


def test_links_inside_are_followed_and_links_outside_are_refused(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    place.published()
    (place.data / "train/none/linked.png").symlink_to("0.png")
    assert place.ingest() == 0
    assert "train/none/linked.png" in place.manifest()["path"].tolist()
    shutil.rmtree(place.folder / "out")
    capsys.readouterr()
    secret = place.folder / "secret.png"
    secret.write_bytes(b"x")
    link = place.data / "train/none/escape.png"
    link.symlink_to(secret)
    refused(place, capsys, 65, "train/none/escape.png", "link that leads out", str(secret))
    link.unlink()
    link = place.data / "train/none/away"
    link.symlink_to(place.folder)
    refused(place, capsys, 65, "train/none/away: is a link that leads out")
    link.unlink()
    link.symlink_to(place.data / "train")
    refused(place, capsys, 65, "train/none/away: is a link to a folder that it lies in")
    link.unlink()
    (place.data / "train/none/loop.png").symlink_to("loop.png")
    refused(place, capsys, 67, "loop.png", "cannot be read")


def test_a_pipe_and_an_unspeakable_name_are_refused(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    place.published()
    os.mkfifo(place.data / "train/none/pipe.png")
    refused(place, capsys, 65, "train/none/pipe.png", "not a regular file")
    (place.data / "train/none/pipe.png").unlink()
    bad = os.fsencode(place.data / "train/none") + b"/\xff.png"
    with open(bad, "wb") as file:
        file.write(b"x")
    refused(place, capsys, 65, "not valid UTF-8")


def test_bytes_that_cannot_be_read_stop_the_run(
    place: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.published()
    real = Path.open

    def locked(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode == "rb" and self.name == "1.png":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", locked)
    refused(place, capsys, 67, "1.png", "cannot be read: Permission denied")


def test_a_full_disk_ends_resumable(
    place: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.published()
    real = Path.open

    class Full:
        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None: ...

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return Full() if mode == "wb" and self.name == "raw-5" else real(self, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        refused(place, capsys, 75, "the disk is full")
    assert place.ingest() == 0


def test_a_card_of_another_dataset_is_refused(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    place.card(name="other")
    refused(place, capsys, 64, "name: must be 'toy'")
