"""dvc.yaml and the component.yaml files say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_every_component_is_a_stage_and_the_other_way_round() -> None:
    assert {p.parent.name for p in (ROOT / "components").glob("*/component.yaml")} == set(STAGES)


def test_the_json_schema_is_that_of_the_interface() -> None:
    told = "python -m components.interface > components/component.schema.json"
    assert (ROOT / "components/component.schema.json").read_text() == schema(), told


@pytest.mark.parametrize("name", STAGES)
def test_the_stage_passes_what_the_interface_asks_for(name: str) -> None:
    stage, interface = STAGES[name], load_interface(name)
    assert stage["cmd"].startswith(f"python -m components.{name} ")
    options = {o.replace("-", "_"): v for o, v in re.findall(r"--([a-z-]+) (\S+)", stage["cmd"])}
    assert set(options) == {*interface.arguments, *interface.inputs, *interface.outputs}
    for argument in interface.arguments:
        assert options[argument] == "${item." + argument + "}"

    outs = paths([*stage.get("outs", []), *stage.get("plots", []), *stage.get("metrics", [])])
    assert {options[o] for o in interface.outputs} == set(outs)
    for key, output in interface.outputs.items():
        assert outs[options[key]].get("persist", False) == output.keep
        assert (options[key] in paths(stage.get("metrics", []))) == output.metric

    deps = paths(stage["deps"])
    assert f"components/{name}" in deps
    assert "requirements/components.txt" in deps
    params, images = stage["params"][1:], stage["params"][0]
    assert {p.replace("${item.", "{") for p in params} == set(interface.params)
    assert images == {"infra/images.lock": [f"{interface.image}.environment"]}


@pytest.mark.parametrize("name", STAGES)
def test_the_stage_depends_on_the_files_that_it_reads(name: str) -> None:
    stage, interface = STAGES[name], load_interface(name)
    options = {o.replace("-", "_"): v for o, v in re.findall(r"--([a-z-]+) (\S+)", stage["cmd"])}
    deps = paths(stage["deps"])
    # The content-addressed images are fixed by the manifest: who depends on that need not hash them again.
    fixed_by_manifest = {"images"} if any("manifest.parquet" in d for d in deps) else set()
    for key in interface.inputs:
        assert options[key] in deps or key in fixed_by_manifest, key
