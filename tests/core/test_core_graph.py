"""dvc.yaml and the component.yaml files say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinprompt.contract.files import IMAGES_LOCK, SETTINGS_LOCK, SOURCES_LOCK
from components.interface import load_interface, schema

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = {
    name: stage
    for file in ("dvc.yaml", "experiments/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}


def paths(entries: list[Any]) -> dict[str, dict[str, Any]]:
    """A stage's deps or outs as {path: flags}."""
    return {k: v for e in entries for k, v in (e.items() if isinstance(e, dict) else [(e, {})])}


def component_of(stage: str) -> str:
    """The component that a stage runs: taught candidates have stages of their own."""
    return stage.removesuffix("_taught")


def test_every_component_is_a_stage_and_the_other_way_round() -> None:
    assert {p.parent.name for p in (ROOT / "components").glob("*/component.yaml")} == {
        component_of(name) for name in STAGES
    }


def test_the_json_schema_is_that_of_the_interface() -> None:
    told = "python -m components.interface > components/component.schema.json"
    assert (ROOT / "components/component.schema.json").read_text() == schema(), told


@pytest.mark.parametrize("name", STAGES)
def test_the_stage_passes_what_the_interface_asks_for(name: str) -> None:
    stage, component = STAGES[name], component_of(name)
    interface = load_interface(component)
    assert stage["cmd"].startswith(f"python -m components.{component} ")
    options = {o.replace("-", "_"): v for o, v in re.findall(r"--([a-z-]+) (\S+)", stage["cmd"])}
    known = {*interface.arguments, *interface.inputs, *interface.outputs}
    assert known - {key for key, file in interface.inputs.items() if file.optional} <= set(options) <= known
    for argument in interface.arguments:
        assert options[argument] == "${item." + argument + "}"

    outs = paths([*stage.get("outs", []), *stage.get("plots", []), *stage.get("metrics", [])])
    assert {options[o] for o in interface.outputs} == set(outs)
    for key, output in interface.outputs.items():
        assert outs[options[key]].get("persist", False) == output.keep
        assert (options[key] in paths(stage.get("metrics", []))) == output.metric

    if name == "lock":
        return
    assert "requirements/components.txt" in paths(stage["deps"])
    files = {file: keys for entry in stage["params"] if isinstance(entry, dict) for file, keys in entry.items()}
    assert files[IMAGES_LOCK] == [f"{interface.image}.environment"]
    assert files[SOURCES_LOCK] == [f"stages.{component}"]
    settings = files.get(SETTINGS_LOCK, [])
    if "card" in interface.inputs:
        assert any(key.startswith("datasets.") and key.endswith(".card") for key in settings)
    # A candidate's, or a method's, knobs are in the settings, beside the digest of its code.
    by_settings = {"candidates.variants", "methods"} if {"candidate", "method"} & set(interface.arguments) else set()
    assert not by_settings or any(key.startswith(("candidates.", "methods.")) for key in settings)
    params = {p.replace("${item.", "{") for p in stage["params"] if isinstance(p, str)}
    assert params == set(interface.params) - by_settings


@pytest.mark.parametrize("name", STAGES)
def test_the_stage_depends_on_the_files_that_it_reads(name: str) -> None:
    stage, component = STAGES[name], component_of(name)
    interface = load_interface(component)
    options = {o.replace("-", "_"): v for o, v in re.findall(r"--([a-z-]+) (\S+)", stage["cmd"])}
    deps = {
        **paths(stage.get("deps", [])),
        **{file: {} for entry in stage.get("params", []) if isinstance(entry, dict) for file in entry},
    }
    # The content-addressed images are fixed by the manifest: who depends on that need not hash them again.
    fixed_by_manifest = {"images"} if any("manifest.parquet" in d for d in deps) else set()
    for key in set(interface.inputs) & set(options) - {"card"}:  # a card is a dependency by its digest
        assert options[key] in deps or key in fixed_by_manifest, key


def test_ingest_runs_again_for_what_it_reads_of_the_validations_knobs_alone() -> None:
    listed = {key for key in STAGES["ingest"]["params"] if isinstance(key, str)}
    assert listed == {"data", "validation.near_duplicate_bits", "validation.near_duplicate_correlation"}


def test_cache_which_tells_classes_apart_comes_before_the_language_model() -> None:
    order = list(STAGES)
    assert order.index("cache") < order.index("describe") < order.index("tune")
