"""Finished samples are kept: with one class more, only that one is generated, and no byte depends on what was kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from describing import OUTPUTS, call, write_classes

import clinprompt
from clinprompt.errors import InputCorrupt
from clinprompt.files import sha256_file
from clinprompt.knowledge import decoding
from clinprompt.knowledge.completion import Completion
from clinprompt.knowledge.outputs import read_descriptions
from clinprompt.knowledge.samples import Samples, key_of
from clinprompt.sources import closure


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the language model completes."""
    sizes: list[int] = []
    complete = decoding.complete

    def counted(llm: Any, prompts: Any, *rest: Any) -> list[Completion]:
        sizes.append(len(prompts))
        return complete(llm, prompts, *rest)

    monkeypatch.setattr(decoding, "complete", counted)
    return sizes


def outputs(folder: Path) -> list[str]:
    return [sha256_file(folder / name) for name in OUTPUTS]


def test_a_second_run_generates_nothing_and_writes_the_same_bytes(
    folder: Path, llm_folder: Path, made: list[int]
) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    first, batches = outputs(folder), len(made)
    assert batches == 4  # for each of two classes its descriptions, and the answer whose states are read
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    assert len(made) == batches
    assert outputs(folder) == first


def test_one_class_more_generates_only_that_class(
    folder: Path, llm_folder: Path, made: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    before = read_descriptions(folder / OUTPUTS[0])
    made.clear()
    write_classes(folder, ["glioma", "adenoma", "none"])
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    assert sorted(made) == [1, 4]
    after = read_descriptions(folder / OUTPUTS[0])
    kept = after[after["class"] != "adenoma"].reset_index(drop=True)
    assert kept.equals(before)
    assert set(safetensors.numpy.load_file(folder / OUTPUTS[1])) == {"glioma", "adenoma", "none"}
    # The same bytes as of a run that starts with all three.
    incremental = outputs(folder)
    anew = tmp_path_factory.mktemp("anew")
    (anew / "small.yaml").write_bytes((folder / "small.yaml").read_bytes())
    write_classes(anew, ["glioma", "adenoma", "none"])
    assert call(anew, path=str(llm_folder), llm="tiny") == 0
    assert outputs(anew) == incremental


@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.9}, {"max_new_tokens": 7}])
def test_what_decides_a_text_makes_it_anew(
    folder: Path, llm_folder: Path, made: list[int], change: dict[str, Any]
) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    made.clear()
    assert call(folder, path=str(llm_folder), llm="tiny", **change) == 0
    assert made == [4, 4]  # the answers whose states are read stay


def test_a_new_sibling_adds_its_own_comparisons_alone(folder: Path, llm_folder: Path, made: list[int]) -> None:
    aspects = {"shape": 2, "differential": 1}
    assert call(folder, path=str(llm_folder), llm="tiny", aspects=aspects) == 0
    assert sorted(made) == [1, 1, 1, 1, 2, 2]
    made.clear()
    write_classes(folder, ["glioma", "adenoma", "none"])
    assert call(folder, path=str(llm_folder), llm="tiny", aspects=aspects) == 0
    # Of the new class: shape, two comparisons, the answer. Of the other two: a comparison each.
    assert sorted(made) == [1, 1, 1, 1, 1, 2]
    table = read_descriptions(folder / OUTPUTS[0])
    assert set(table.loc[table["class"] == "none", "aspect"]) == {
        "shape", "differential:glioma", "differential:adenoma",
    }  # fmt: skip


def test_a_sample_is_whole_or_not_there_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    kept, key = Samples(tmp_path / "samples"), key_of({"prompt": "x"})
    assert kept.find(key) is None
    texts = [Completion([1, 2], "Größe", True), Completion([], "", False, "host model")]
    kept.keep(key, texts)
    assert Samples(tmp_path / "samples").find(key, 2) == texts
    [file] = (tmp_path / "samples").rglob("*.json")
    one = {"tokens": [1], "text": "Größe", "ended": True, "revision": None}
    wrong = [[], {}, [{}], [None], "text", 5, None, [one], [{"words": 1}] * 2, [one, {**one, "more": 1}]]
    changes = {"tokens": (None, [1.5], ["1"]), "text": (5, None), "ended": (1,), "revision": (2,)}
    wrong += [[one, {**one, name: value}] for name, values in changes.items() for value in values]
    for damaged in ("[{", *(json.dumps(content) for content in wrong)):
        file.write_text(damaged)
        with pytest.raises(InputCorrupt, match="Delete it and run again"):
            kept.find(key, 2)
    file.write_text(json.dumps([one, one]))
    assert kept.find(key, 2) == [Completion([1], "Größe", True)] * 2


@pytest.mark.parametrize("content", ["[]", "{}", "5"])
def test_a_kept_sample_of_the_wrong_shape_ends_the_stage_with_its_name(
    folder: Path, llm_folder: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    file = min((folder / "samples").rglob("*.json"))
    file.write_text(content)
    capsys.readouterr()
    assert call(folder, path=str(llm_folder), llm="tiny") == 67
    assert f"{file.name} does not hold finished samples. Delete it and run again." in capsys.readouterr().out


def test_another_rule_or_knob_of_the_checks_makes_no_sample_anew() -> None:
    """Its key holds the code that samples, and none that judges."""
    behind = closure(["clinprompt.knowledge.decoding"], Path(clinprompt.__file__).parents[1])
    judging = ("statement.py", "checks.py", "scopes.py", "claims.py", "knowledge_params.py", "terms/")
    assert not [name for name in behind if any(part in name for part in judging)]
