"""Files are complete or absent."""

import re
from pathlib import Path

import pytest

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import (
    atomic,
    check_new,
    check_place,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_folder,
    to_json,
    write_json,
)
from clinprompt.os_errors import explained


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic(path) as partial:
        partial.write_text("half")
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for names in (["a", "b"], ["c"]):
        with atomic(tmp_path / "folder") as partial:
            partial.mkdir()
            for name in names:
                (partial / name).touch()
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["c"]


def test_no_file_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "folder", {})
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "kept"]


def test_equal_values_give_equal_json(tmp_path: Path) -> None:
    assert to_json({"b": 1, "a": "é"}) == to_json({"a": "é", "b": 1}) == '{\n  "a": "é",\n  "b": 1\n}\n'
    write_json(tmp_path / "x.json", {"a": [1]})
    assert read_json(tmp_path / "x.json") == {"a": [1]}


def test_nan_never_enters_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_reading_json_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputCorrupt, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_a_folder_s_digest_depends_on_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"1")
    first = sha256_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256_folder(tmp_path) != first


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        ("/proc/x", InputMissing, "nothing can be made at /proc/x "),
        ("/proc/x/y", InputMissing, "nothing can be made at /proc/x/y "),
        ("/dev/null/x", InputMissing, "a file where a folder is expected: /dev/null/x;"),
        ("x" * 250, InputMissing, "the name is too long: x"),
        ("x/" * 2500 + "x", InputMissing, "the name is too long: x/"),
        (".", BadParams, "'.' ends with no name"),
        ("..", BadParams, "'..' ends with no name"),
        ("/", BadParams, "'/' ends with no name"),
        ("", BadParams, "'.' ends with no name"),
    ],
)
def test_where_nothing_can_be_made_is_said_before_and_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: type[Exception], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=re.escape(says)):
        check_place(Path(place))
    with pytest.raises((error, OSError)) as raised:
        write_json(Path(place), {})
    assert isinstance(raised.value, error) or explained(raised.value) is not None
    assert not list(tmp_path.iterdir())


def test_looking_for_a_place_leaves_nothing(tmp_path: Path) -> None:
    check_place(tmp_path / "a" / "b")
    check_new(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadParams, match="gone exists"):
        check_new(tmp_path / "gone")
    with pytest.raises(InputMissing, match="nothing can be made at"):
        check_place(tmp_path / "gone" / "x")
