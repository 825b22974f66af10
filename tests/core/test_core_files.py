"""Files are complete or absent."""

from pathlib import Path

import pytest

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import atomic, read_json, sha256_bytes, sha256_file, sha256_folder, to_json, write_json


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
