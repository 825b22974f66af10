"""params.yaml: what is there loads; what is wrong is named by its path."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from clinprompt.errors import BadParams, InputMissing
from clinprompt.params import load_params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shipped() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def write(folder: Path, value: Any) -> Path:
    path = folder / "params.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return path


def test_the_shipped_params_load() -> None:
    assert load_params(ROOT / "params.yaml").datasets == ["brain-phantom"]


def test_an_unknown_key_is_named_with_the_closest_known_one(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["cache"]["batchsize"] = 3
    with pytest.raises(BadParams, match=r"params.yaml: cache.batchsize: no such key \(did you mean 'batch_size'\?\)"):
        load_params(write(tmp_path, shipped))


def test_a_wrong_type_is_named_with_what_was_found(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["candidates"]["seeds"] = [1, "two"]
    with pytest.raises(BadParams, match=r"candidates.seeds.1: .*integer.*found 'two'"):
        load_params(write(tmp_path, shipped))


def test_a_missing_key_is_named(tmp_path: Path, shipped: dict[str, Any]) -> None:
    del shipped["gate"]["margin"]
    with pytest.raises(BadParams, match="gate.margin: missing"):
        load_params(write(tmp_path, shipped))


def test_numbers_are_not_taken_from_text(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["gate"]["margin"] = "0.1"
    with pytest.raises(BadParams, match="gate.margin"):
        load_params(write(tmp_path, shipped))


def test_a_candidate_without_knobs_is_named(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["candidates"]["methods"] = ["cocoop"]
    del shipped["methods"]["cocoop"]
    with pytest.raises(BadParams, match=r"candidates.methods names 'cocoop', which has no entry under methods"):
        load_params(write(tmp_path, shipped))


def test_all_problems_are_told_at_once(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["cache"]["workers"] = -1
    shipped["extra"] = 1
    with pytest.raises(BadParams, match=r"cache\.workers.*extra: no such key"):
        load_params(write(tmp_path, shipped))


def test_what_is_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="not valid YAML"):
        load_params(write(tmp_path, "a: [1,"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="does not exist"):
        load_params(tmp_path / "params.yaml")
