"""What the library, the components and the DAGs share: one name per variable, and texts that read back as written."""

import ast
import base64
import pkgutil
import tomllib
import zlib
from pathlib import Path
from typing import Any

import pytest

from clinprompt.contract import variables
from clinprompt.contract.candidates import CandidateId
from clinprompt.contract.tasks import PartitionKey, pack, unpack

NAMES = {value for key, value in vars(variables).items() if key.isupper() and key != "PREFIX"}


def test_each_variable_is_named_after_its_constant() -> None:
    for key, value in vars(variables).items():
        if key.isupper() and key != "PREFIX":
            assert value == f"{variables.PREFIX}{key}"


def test_no_package_writes_a_variable_s_name_by_hand(root: Path) -> None:
    copied = set()
    for package in ("clinprompt", "components", "dags", "registry", "workspace"):
        for file in (root / package).rglob("*.py"):
            literals = {n.value for n in ast.walk(ast.parse(file.read_bytes())) if isinstance(n, ast.Constant)}
            if NAMES & literals:
                copied.add(file.relative_to(root).as_posix())
    # Served alone, inside of a model, where there is no contract to import.
    assert copied == {"clinprompt/contract/variables.py", "registry/model_script.py"}


def test_the_import_contract_of_the_dags_lists_all_of_the_library_but_the_contract(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [forbidden] = [c["forbidden_modules"] for c in contracts if c.get("source_modules") == ["clinprompt_dags"]]
    modules = {f"clinprompt.{module.name}" for module in pkgutil.iter_modules([str(root / "clinprompt")])}
    assert {name for name in forbidden if name.startswith("clinprompt.")} == modules - {"clinprompt.contract"}


def test_a_task_reads_back_as_it_was_written_and_equal_tasks_have_equal_texts() -> None:
    task = {"plan": {"dataset": "brain-phantom"}, "entries": [{"stage": "tune@brain-phantom-coop-1"}]}
    assert unpack(pack(task)) == task
    assert pack(task) == pack(dict(reversed(task.items())))


TOO_DEEP = base64.b64encode(zlib.compress(b"[" * 5000)).decode()


@pytest.mark.parametrize("text", ["", "not packed", "bm90IHppcHBlZA==", TOO_DEEP])
def test_what_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is not base64 of zlib of JSON"):
        unpack(text)


@pytest.mark.parametrize(
    ("key", "text"),
    [(PartitionKey("brain-phantom", "r1"), "brain-phantom@r1"), (CandidateId("tip-adapter", 2), "tip-adapter-2")],
)
def test_a_key_is_the_inverse_of_its_text(key: Any, text: str) -> None:
    assert str(key) == text
    assert type(key).parse(text) == key


@pytest.mark.parametrize("text", ["", "brain-phantom", "@r1", "brain-phantom@"])
def test_a_partition_key_needs_both_parts(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected DATASET@RELEASE, found"):
        PartitionKey.parse(text)


@pytest.mark.parametrize("text", ["", "coop", "-1", "coop-x", "coop-\u0661"])
def test_a_candidate_needs_a_name_and_a_seed(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected NAME-SEED"):
        CandidateId.parse(text)
