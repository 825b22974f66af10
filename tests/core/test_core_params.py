"""params.yaml: what is there loads; what is wrong is named by its path."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinprompt.contract.params_schema import FILE
from clinprompt.errors import BadParams, InputMissing
from clinprompt.experiments.schema import schema
from clinprompt.params import CandidateSpec, load_params
from clinprompt.schema import parse_yaml, read_yaml, to_yaml

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
    del shipped["gate"]["alpha"]
    with pytest.raises(BadParams, match="gate.alpha: missing"):
        load_params(write(tmp_path, shipped))


def test_numbers_are_not_taken_from_text(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["gate"]["alpha"] = "0.1"
    with pytest.raises(BadParams, match="gate.alpha"):
        load_params(write(tmp_path, shipped))


def test_a_method_that_stands_nowhere_else_competes_with_its_defaults(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["candidates"]["methods"] = ["cocoop"]
    params = load_params(write(tmp_path, shipped))
    assert params.candidate("cocoop") == CandidateSpec(name="cocoop", method="cocoop", knobs={})


def test_no_methods_at_all_may_stand_there(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["methods"] = None
    shipped["candidates"]["variants"] = None
    assert load_params(write(tmp_path, shipped)).methods == {}


WRONG_KNOBS = [
    ("methods", {"coop": {"epochz": 3}}, "methods.coop.epochz: no such key (did you mean 'epochs'?)"),
    ("methods", {"coop": {"epochs": 0}}, "methods.coop.epochs: input should be greater than 0, found 0"),
    ("methods", {"coop": {"epochs": 4.0}}, "methods.coop.epochs: input should be a valid integer, found 4.0"),
    ("methods", {"coop": {"epochs": True}}, "methods.coop.epochs: input should be a valid integer, found True"),
    ("methods", {"coop": {"learning_rate": "fast"}}, "methods.coop.learning_rate: input should be a valid number"),
    ("methods", {"coop": {"learning_rate": float("nan")}}, "methods.coop.learning_rate: input should be a finite"),
    ("methods", {"coop": {"class_position": "ende"}}, "methods.coop.class_position: there is no such name (did you"),
    ("methods", {"coop": {"context_init": 3}}, "methods.coop.context_init: input should be a valid string, found 3"),
    ("methods", {"vpt": {"depth": 0}}, "methods.vpt.depth: input should be greater than 0, found 0"),
    ("methods", {"cilmp": {"averaging": {"mean": 1.0}}}, "methods.cilmp.averaging.std: missing"),
    ("methods", {"lora": {"targets": []}}, "methods.lora.targets: list should have at least 1 item, found []"),
    ("methods", {"vpt": {"template": "a scan"}}, "methods.vpt.template: must hold {} once"),
    ("methods", {"vpt": {"template": "{} {}"}}, "methods.vpt.template: must hold {} once"),
    ("methods", {"copo": {}}, "methods.copo: no such key (did you mean 'coop'?); for a new method, run python -m"),
    ("protocols", {"names": ["fewshot"]}, "protocols.names.0: there is no such name (did you mean 'few_shot'?)"),
    ("protocols", {"methods": ["copo"]}, "protocols.methods.0: there is no such name (did you mean 'coop'?)"),
    ("protocols", {"stak": 3}, "protocols.stak: no such key (did you mean 'stack'?)"),
    ("protocols", {"full": {"methods": {"coop": {"epoch": 1}}}}, "protocols.full.methods.coop.epoch: no such key"),
    ("protocols", {"full": {"methods": {"copo": {}}}}, "protocols.full.methods.copo: no such key (did you mean"),
    ("protocols", {"label_efficiency": {"fractions": [1.5], "methods": {}}}, "protocols.label_efficiency.fractions.0"),
    ("candidates", {"methods": ["copo"]}, "candidates.methods: 'copo' is neither a method nor one of candidates.var"),
    ("candidates", {"variants": {"coop": {"method": "coop"}}}, "candidates.variants.coop: is a method's name"),
    ("candidates", {"variants": {"a": {"method": "copo"}}}, "candidates.variants.a.method: there is no method 'copo'"),
    ("candidates", {"variants": {"a": {"n_ctx": 16}}}, "candidates.variants.a.method: missing"),
    ("candidates", {"variants": {"a": {"method": "coop", "n_cxt": 1}}}, "candidates.variants.a.n_cxt: no such key"),
]


@pytest.mark.parametrize(("section", "change", "sentence"), WRONG_KNOBS)
def test_a_wrong_knob_is_named_when_params_are_loaded(
    tmp_path: Path, shipped: dict[str, Any], section: str, change: dict[str, Any], sentence: str
) -> None:
    shipped[section] |= change
    with pytest.raises(BadParams) as caught:
        load_params(write(tmp_path, shipped))
    assert f"params.yaml: {sentence}" in str(caught.value)


def test_a_wrong_knob_is_named_without_torch(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["methods"] = {"coop": {"epochz": 3}}
    code = (
        "import sys; from pathlib import Path; from clinprompt.params import load_params\n"
        "try: load_params(Path(sys.argv[1]))\n"
        "except Exception as error: print(error, 'torch' in sys.modules)"
    )
    argv = [sys.executable, "-c", code, str(write(tmp_path, shipped))]
    found = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "no such key (did you mean 'epochs'?). False" in found.stdout


def test_the_knobs_schema_is_that_of_the_methods_and_protocols() -> None:
    assert FILE.read_text() == schema(), "python -m clinprompt.experiments.schema"


def test_a_variant_has_its_methods_knobs_and_its_own(tmp_path: Path, shipped: dict[str, Any]) -> None:
    shipped["candidates"] = {
        "methods": ["coop-16", "coop"],
        "seeds": [1, 2],
        "variants": {"coop-16": {"method": "coop", "n_ctx": 16, "context_init": None}},
    }
    shipped["methods"] = {"coop": {"epochs": 3}}
    params = load_params(write(tmp_path, shipped))
    assert [str(c) for c in params.candidates.ids] == ["coop-16-1", "coop-16-2", "coop-1", "coop-2"]
    spec = params.candidate("coop-16")
    assert (spec.method, spec.knobs, spec.variant) == ("coop", {"epochs": 3}, {"n_ctx": 16, "context_init": None})
    assert params.candidate("coop").variant == {}
    with pytest.raises(BadParams, match=r"'coop-1' is neither a method nor .* \(did you mean 'coop-16'\?\)"):
        params.candidate("coop-1")


def whole_numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of the whole numbers in a document."""
    if type(value) is int:
        yield path
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from whole_numbers(inner, (*path, key))


def test_no_knob_takes_a_number_that_no_machine_could_work_with(tmp_path: Path, shipped: dict[str, Any]) -> None:
    paths = [path for path in whole_numbers(shipped) if not ({"age_bands", "protocols", "methods"} & set(path))]
    assert len(paths) > 20
    for *parents, key in paths:
        changed = copy.deepcopy(shipped)
        part = changed
        for name in parents:
            part = part[name]
        part[key] = 10**30
        with pytest.raises(BadParams, match=str(key)):
            load_params(write(tmp_path, changed))


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
def test_numbers_are_finite(tmp_path: Path, shipped: dict[str, Any], number: str) -> None:
    text = yaml.safe_dump(shipped).replace("confidence: 0.95", f"confidence: {number}")
    with pytest.raises(BadParams, match=r"evaluation\.confidence: input should be a finite number"):
        load_params(write(tmp_path, text))


@pytest.mark.parametrize(("text", "value"), [("2e-3", 0.002), ("1E3", 1000.0), ("-.5e+1", -5.0), ("1.e2", 100.0)])
def test_a_number_needs_no_dot(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{{plain: {text}, quoted: '{text}', word: e3, whole: 12}}")
    assert read_yaml(path) == {"plain": value, "quoted": text, "word": "e3", "whole": 12}


def test_text_that_looks_like_a_number_is_text_again_after_writing(tmp_path: Path) -> None:
    value = {"class": "1e3", "other": "2e-3", "number": 0.002}
    assert parse_yaml(to_yaml(value)) == value


def test_the_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, shipped: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    shipped["data"]["root"] = shipped["backbone"]["path"] = shipped["knowledge"]["path"] = "~/files"
    shipped["airflow"]["python"] = "~/python"
    params = load_params(write(tmp_path, shipped))
    assert {params.data.root, params.backbone.path, params.knowledge.path} == {"/home/somebody/files"}
    assert params.airflow.python == "/home/somebody/python"


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


@pytest.mark.parametrize(
    ("key", "name", "sentence"),
    [
        ("production_model", "{dataset", "of braces it may hold only {dataset}"),
        ("production_model", "{0}", "of braces it may hold only {dataset}"),
        ("experiment", "{name}", "of braces it may hold only {dataset}"),
        ("results", " ", "is no name"),
        ("candidate_model", "a/{dataset}", "can't be the name of a registered model"),
        ("candidate_model", "it's", "can't be the name of a registered model"),
    ],
)
def test_a_name_that_the_registry_can_t_have_is_refused(
    tmp_path: Path, shipped: dict[str, Any], key: str, name: str, sentence: str
) -> None:
    shipped["registry"][key] = name
    with pytest.raises(BadParams, match=f"registry.{key}: ") as caught:
        load_params(write(tmp_path, shipped))
    assert sentence in str(caught.value)
