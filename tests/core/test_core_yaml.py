"""YAML files: whatever stands in one, or in its place, ends in a value or in one sentence, and soon."""

import os
from pathlib import Path
from typing import Any

import pytest

from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import read_json
from clinprompt.knobs import knob_problems
from clinprompt.schema import read_yaml

LEVELS = [f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 9)}]" for n in range(9)]
BOMB = "\n".join(["l0: &l0 [x, x]", *LEVELS, "title: *l9"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title: 2024-13-45", "'2024-13-45' can't be read (month must be in 1..12)"),
        ("title: 2024-01-01 00:00:00 +99:99", "can't be read"),
        ("title: " + "9" * 5000, "a number of 5000 characters"),
        ("title: 0x" + "f" * 5000, "a number of 5002 characters"),
        ("title: 1" + ":59" * 300_000, "a number of 900001 characters"),
        ("title: " + "[" * 2000 + "]" * 2000, "more than 50 lists and mappings in one another"),
        ("title:\n- " + "- " * 2000, "more than 50 lists and mappings in one another"),
        (BOMB, "more than 100000 values, with those that aliases repeat"),
        ("title: &a [*a]", "an alias stands inside of what it stands for"),
        ("title: &a {x: {<<: *a}}", "an alias stands inside of what it stands for"),
        ("title: !!int ''", "can't be read"),
        ("title: !!bool maybe", "can't be read"),
        ("title: !!timestamp soon", "can't be read"),
        ("title: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ('title: "\\ud800"', "half of a surrogate pair"),
        ('title: "\\U00ffffff"', "an impossible character"),
        ("title: \0", "special characters are not allowed"),
        ("? [a]\n: b", "unhashable key"),
        ("title: " + "x" * 1_000_001, "more than the limit of 1000000"),
    ],
    ids=range(19),
)
def test_what_can_not_be_a_value_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(BadParams) as error:
        read_yaml(path)
    message = str(error.value)
    assert message.startswith(f"{path} is not valid YAML: ")
    assert sentence in message
    assert len(message) < 600


def test_aliases_and_merges_of_a_reasonable_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("a: &a {x: 1, y: 2e-3}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n")
    a = {"x": 1, "y": 0.002}
    assert read_yaml(path) == {"a": a, "b": {"x": 3, "y": 0.002}, "c": [a, a]}


@pytest.mark.parametrize(("read", "kind_of_error"), [(read_yaml, BadParams), (read_json, InputCorrupt)])
@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "device", "below a file", "long name"])
def test_what_is_no_file_is_a_sentence(tmp_path: Path, kind: str, read: Any, kind_of_error: Any) -> None:
    path = tmp_path / "card.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "below a file":
        path.write_text("a: 1")
        path = path / "card.yaml"
    else:
        path = tmp_path / ("x" * 300)
    with pytest.raises(kind_of_error, match="card.yaml|/dev/zero|xxx"):
        read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read_it_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.touch(mode=0)
    with pytest.raises(BadParams, match=r"can't be read \(Permission denied\)"):
        read_yaml(path)


def test_a_method_takes_no_number_of_absurd_size() -> None:
    (problem,) = knob_problems("coop", {"batch_size": 10**30})
    assert problem.startswith("batch_size: input should be less than or equal to 1000000000, found 10")
