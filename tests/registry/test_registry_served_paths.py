"""Which files a served model opens, and what its errors tell."""

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fabricate import Run

CONTENT = "root:x:0:0"


@pytest.fixture(scope="module")
def model(promoted: Run) -> Any:
    """The model of a promoted run, loaded as a server would."""
    import mlflow

    return mlflow.pyfunc.load_model(str(next(promoted.root.glob("mlartifacts/models/*/artifacts"))))


@pytest.fixture
def folder(promoted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image, which the operator named, beside another image and a text."""
    image = promoted.images(1)[0]
    inside = tmp_path / "images"
    inside.mkdir()
    (inside / "scan.png").write_bytes(image)
    (inside / "notes.txt").write_text(CONTENT)
    (tmp_path / "scan.png").write_bytes(image)
    (tmp_path / "images-more").mkdir()
    shutil.copy(inside / "scan.png", tmp_path / "images-more" / "scan.png")
    monkeypatch.setenv("CLINPROMPT_IMAGE_FOLDER", str(inside))
    monkeypatch.chdir(tmp_path)
    return inside


def label(model: Any, image: object) -> str:
    """What an image is classified as."""
    return str(model.predict(pd.DataFrame({"image": [image]}))["label"][0])


def refusal(model: Any, image: object) -> str:
    """The error of an image that is refused."""
    with pytest.raises(ValueError, match="Row 0 of the input can't be read as an image") as caught:
        label(model, image)
    return str(caught.value)


def test_a_text_opens_no_file_unless_the_operator_names_a_folder(
    model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("CLINPROMPT_IMAGE_FOLDER")
        else:
            monkeypatch.setenv("CLINPROMPT_IMAGE_FOLDER", value)
        for text in ("scan.png", str(folder / "scan.png"), "/etc/passwd"):
            assert "CLINPROMPT_IMAGE_FOLDER" in refusal(model, text)


def test_below_that_folder_relative_and_whole_paths_are_opened(model: Any, folder: Path) -> None:
    expected = label(model, (folder / "scan.png").read_bytes())
    (folder / "deep").mkdir()
    (folder / "deep" / "link.png").symlink_to(folder / "scan.png")
    for text in ("scan.png", str(folder / "scan.png"), "deep/link.png", "deep/../scan.png"):
        assert label(model, text) == expected


def test_a_file_of_4_gb_is_not_read_by_a_text_or_a_path(model: Any, folder: Path) -> None:
    os.truncate(folder / "scan.png", 1 << 32)  # takes no room on the disk
    for image in ("scan.png", folder / "scan.png"):
        assert "the file has 4294967296 bytes, more than the limit of 800000000" in refusal(model, image)


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "a.pipe")
    return "a.pipe"


def loop(folder: Path) -> str:
    (folder / "a.loop").symlink_to("a.loop")
    return "a.loop"


def link(folder: Path) -> str:
    (folder / "out.png").symlink_to(folder.parent / "scan.png")
    return "out.png"


OUTSIDE: dict[str, Callable[[Path], str]] = {
    "up": lambda folder: "../scan.png",
    "whole": lambda folder: str(folder.parent / "scan.png"),
    "a folder whose name begins the same": lambda folder: str(folder.parent / "images-more" / "scan.png"),
    "a link that leads out": link,
    "missing": lambda folder: "no-such.png",
    "missing outside": lambda folder: "/no/such.png",
    "the folder": lambda folder: ".",
    "a pipe": fifo,
    "a link in a circle": loop,
    "a zero byte": lambda folder: "scan.png\0",
    "a long name": lambda folder: "%" * 3000,
    "no ASCII": lambda folder: "größe.png",
}


def test_what_lies_elsewhere_is_not_told_from_what_is_missing(model: Any, folder: Path) -> None:
    assert len({refusal(model, make(folder)) for make in OUTSIDE.values()}) == 1


def test_an_error_shows_nothing_of_a_file(model: Any, folder: Path) -> None:
    broken = (folder / "scan.png").read_bytes()[:60] + CONTENT.encode() * 9
    for image in (
        "notes.txt",
        folder / "notes.txt",
        CONTENT.encode(),
        base64.b64encode(CONTENT.encode()).decode(),
        broken,
    ):
        text = refusal(model, image)
        assert CONTENT[:4] not in text
        assert CONTENT[:4].encode().hex(" ") not in text


def test_base64_may_come_in_lines_or_as_a_data_url(model: Any, folder: Path) -> None:
    image = (folder / "scan.png").read_bytes()
    expected = label(model, image)
    lines = base64.encodebytes(image).decode()
    assert "\n" in lines.strip()
    for text in (lines, lines.replace("\n", "\r\n"), f"data:image/png;base64,{base64.b64encode(image).decode()}"):
        assert label(model, text) == expected


def test_a_path_object_can_come_from_this_process_alone_and_is_opened(
    model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLINPROMPT_IMAGE_FOLDER")
    expected = label(model, (folder / "scan.png").read_bytes())
    assert label(model, folder.parent / "scan.png") == expected
    assert model.predict([{"image": Path("scan.png")}])["label"][0] == expected
    assert "absent.png: No such file" in refusal(model, Path("absent.png"))
