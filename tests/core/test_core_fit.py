"""Whether the candidates fit the backbone and the language model is asked by `lock`, before anything slow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinprompt.backbones.load import load_backbone
from clinprompt.backbones.sizes import declared_sizes
from clinprompt.contract.params_schema import knob_defaults, limits_of
from clinprompt.experiments.tables.papers import edit_params
from clinprompt.methods import method, names
from clinprompt.params import load_params
from clinprompt.schema import read_yaml
from components.lock.__main__ import work
from components.runner import execute
from workspace.project import lock_texts

ROOT = Path(__file__).parents[2]
NAME = "brain-phantom"


class Project:
    """A folder on which the component `lock` is run, without the sources: they are no part of what is tested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
        self.card: dict[str, Any] = yaml.safe_load((ROOT / "datasets" / f"{NAME}.yaml").read_text())

    def lock(self) -> int:
        (self.folder / "datasets").mkdir(exist_ok=True)
        (self.folder / "datasets" / f"{NAME}.yaml").write_text(yaml.safe_dump(self.card))
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))
        return execute("lock", work, ["--sources", "sources.lock", "--settings", "settings.lock"], ROOT / "components")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("clinprompt", "components", "registry", "workspace"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def message(capsys: pytest.CaptureFixture[str]) -> str:
    return str(json.loads(capsys.readouterr().out.splitlines()[-1])["message"])


def test_all_limits_are_told_in_one_sentence(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.params["candidates"] |= {"methods": ["maple", "vpt-9", "dvpt"], "taught": ["cilmp", "biomed_dpt"]}
    project.params["candidates"]["variants"] = {"vpt-9": {"method": "vpt", "depth": 9}}
    project.params["methods"] = {"cilmp": {"n_ctx": 20, "prefix_length": 40}, "biomed_dpt": {"n_visual": 64}}
    project.card["methods"] = {"dvpt": {"image_size": 66}, "maple": {"depth": 4}}
    assert project.lock() == 64
    assert message(capsys) == (
        "params.yaml: what can't be trained with the backbone demo-clip: "
        "maple: depth: must be at most 3, the blocks of the backbone's text tower, found 4; "
        "vpt-9: depth: must be at most 5, the blocks of the backbone's image tower, found 9; "
        "dvpt: image_size: must be a multiple of 8, the side of the backbone's patches, found 66; "
        "cilmp: prefix_length + suffix_length: must be at most 30, the language model's rows, found 44; "
        "cilmp: n_ctx: must be at most 14 (48, the tokens that the backbone's text tower reads, less 30 rows of the "
        "language model and 4 tokens for the rest of the shortest prompt), found 20; "
        "biomed_dpt: n_visual: must be at most 63 (64, the patches of an image, less one that stays), found 64. "
        "Change these knobs, or take out what has them."
    )
    assert not Path("settings.lock").exists()


@pytest.mark.parametrize(
    ("candidates", "knobs"),
    [
        ({"methods": ["maple", "vpt", "dvpt", "coop"], "taught": ["cilmp", "biomed_dpt"]}, {}),
        ({"methods": [], "taught": ["cilmp"]}, {"cilmp": {"n_ctx": 20, "llm_layers": [0, 9, 19, 29, 4, 5, 6, -30]}}),
        ({"methods": [], "taught": ["biomed_dpt"]}, {"biomed_dpt": {"n_visual": 64, "visual": "insert_frozen"}}),
        ({"methods": ["coop"], "taught": []}, {"maple": {"depth": 40}}),  # no candidate
    ],
)
def test_what_fits_passes(project: Project, candidates: dict[str, Any], knobs: dict[str, Any]) -> None:
    project.params["candidates"] |= candidates
    project.params["methods"] = knobs
    assert project.lock() == 0


def test_experiments_are_asked_too_with_their_own_knobs(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.params["protocols"] |= {"methods": ["vpt"], "names": ["few_shot", "base_to_novel"]}
    project.params["protocols"]["few_shot"]["methods"] = {"vpt": {"depth": 6}}
    project.card["base_to_novel"] = {"methods": {"vpt": {"depth": 7}}}
    assert project.lock() == 64
    said = message(capsys)
    assert "vpt in few_shot: depth: must be at most 5, the blocks of the backbone's image tower, found 6; " in said
    assert "vpt in base_to_novel: depth: must be at most 5, the blocks of the backbone's image tower, found 7" in said


@pytest.mark.parametrize(
    ("section", "value", "said"),
    [
        ("backbone", {"name": "demo-clop", "path": None}, "backbone.name: 'demo-clop' is not in"),
        ("knowledge", {"llm": "smollm"}, "knowledge.llm: no entry 'smollm'"),
        ("knowledge", {"aspects": ["shape", "vessels"]}, "knowledge.aspects: no aspect 'vessels'; there are"),
    ],
)
def test_a_name_that_no_table_has_is_told(
    project: Project, capsys: pytest.CaptureFixture[str], section: str, value: dict[str, Any], said: str
) -> None:
    project.params["candidates"]["taught"] = ["cilmp"]
    project.params[section] |= value
    assert project.lock() == 64
    assert said in message(capsys)


def test_sizes_that_no_file_tells_are_left_to_tune(project: Project, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "clinprompt/backbones/weights/demo-clip", tmp_path / "own")
    config = tmp_path / "own" / "open_clip_config.json"
    content = json.loads(config.read_text())
    project.params["candidates"]["methods"] = ["vpt"]
    project.params["methods"] = {"vpt": {"depth": 9}}
    project.params["backbone"] = {"name": "own", "path": str(tmp_path / "own")}
    assert project.lock() == 64
    content["model_cfg"]["vision_cfg"] = {"timm_model_name": "x", "image_size": 64}
    config.write_text(json.dumps(content))
    assert project.lock() == 0
    shutil.rmtree(tmp_path / "own")
    assert project.lock() == 0


def test_what_reads_records_needs_a_card_that_has_them(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.params["candidates"] |= {"methods": ["coop", "reports"], "taught": []}
    project.params["candidates"]["variants"] = {"reports": {"method": "deft_ad"}}
    project.params["protocols"] |= {"methods": ["deft_ad"], "names": ["full"]}
    assert project.lock() == 64
    lacks = f"datasets/{NAME}.yaml has no record, which reports of its subjects are written from"
    assert message(capsys) == (
        f"params.yaml: what can't learn from the subjects' records: reports on {NAME}: {lacks}; deft_ad in full on "
        f"{NAME}: {lacks}. Mend the cards, or take these methods or datasets out."
    )
    assert not Path("settings.lock").exists()


@pytest.mark.parametrize(
    ("reference", "knobs", "said"),
    [
        (False, {"z_scores": True}, "record.reference: z_scores need the class of healthy subjects"),
        (True, {"z_scores": True, "adjust_for": "brain"}, "record: adjust_for names 'brain', which is none of v"),
        (True, {"z_scores": True, "adjust_for": "v"}, None),
        (False, {}, None),
    ],
)
def test_z_scores_need_what_tells_the_normal(
    project: Project, capsys: pytest.CaptureFixture[str], reference: bool, knobs: dict[str, Any], said: str | None
) -> None:
    project.card.setdefault("metadata", {}).setdefault("extra", []).append("v")
    project.card["record"] = {"measures": [{"column": "v", "name": "Ventricles"}]}
    if reference:
        project.card["record"]["reference"] = project.card["classes"][0]["id"]
    project.params["candidates"] |= {"methods": ["deft_ad"], "taught": []}
    project.params["methods"] = {"deft_ad": {"phrasings": "varied"} | knobs}
    assert project.lock() == (64 if said else 0)
    assert said is None or f"deft_ad on {NAME}: datasets/{NAME}.yaml: {said}" in message(capsys)


def paraphrasing(project: Project) -> None:
    """Two variants of a method that reads records, one of them paraphrases too, on a card that has such."""
    project.card.setdefault("metadata", {}).setdefault("extra", []).append("v")
    project.card["record"] = {"measures": [{"column": "v", "name": "Ventricles"}]}
    project.params["candidates"] |= {"methods": ["plain"], "taught": ["told"], "variants": {}}
    for name, phrasings in (("plain", "varied"), ("told", "paraphrased")):
        project.params["candidates"]["variants"][name] = {"method": "deft_ad", "phrasings": phrasings}
    project.params["protocols"] |= {"methods": [], "names": []}


def test_who_reads_paraphrases_is_taught_and_nobody_else_has_them_made(project: Project) -> None:
    paraphrasing(project)
    assert project.lock() == 0
    assert yaml.safe_load(Path("settings.lock").read_text())["knowledge"] == ["paraphrases"]
    project.params["candidates"]["taught"] = []
    assert project.lock() == 0
    assert yaml.safe_load(Path("settings.lock").read_text())["knowledge"] == []
    project.params["protocols"] |= {"methods": ["deft_ad"], "names": ["full"]}
    project.params["protocols"]["full"]["methods"] = {"deft_ad": {"phrasings": "paraphrased"}}
    assert project.lock() == 0
    assert yaml.safe_load(Path("settings.lock").read_text())["knowledge"] == ["paraphrases"]


def test_who_reads_paraphrases_must_be_listed_where_it_waits_for_them(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    paraphrasing(project)
    project.params["candidates"] |= {"methods": ["plain", "told"], "taught": []}
    assert project.lock() == 64
    assert "'told' reads what the stage describe makes; list it under candidates.taught" in message(capsys)
    project.params["candidates"] |= {"methods": ["deft_ad"], "taught": []}
    project.params["methods"] = {"deft_ad": {"phrasings": "paraphrased"}}
    assert project.lock() == 64
    told = message(capsys)
    assert f"'deft_ad' on {NAME} reads paraphrases of the stage describe, by knobs that the card or the section" in told
    project.params["methods"] = {}
    project.card["methods"] = {"deft_ad": {"phrasings": "paraphrased"}}
    assert project.lock() == 64
    assert message(capsys) == told


def test_a_scheduled_run_is_refused_when_it_is_planned(project: Project) -> None:
    project.params["methods"] = {"coop": {"n_ctx": 44, "context_init": None}}
    project.lock()
    with pytest.raises(Exception, match=r"coop: n_ctx: must be at most 43 .* found 44"):
        lock_texts(project.folder, load_params(Path("params.yaml")))


def test_the_check_needs_neither_torch_nor_pandas() -> None:
    heavy = {"torch", "open_clip", "pandas"}
    script = f"import sys, components.lock.__main__, workspace.stage; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_declared_sizes_are_those_of_the_loaded_towers() -> None:
    declared, backbone = declared_sizes("demo-clip"), load_backbone("demo-clip")
    assert declared.model_dump() == {
        "tokens": backbone.tokenize([""]).shape[1],
        "positions": backbone.text.context,
        "text_blocks": len(backbone.text.blocks),
        "image_blocks": len(backbone.vision.blocks),
        "patches": backbone.vision.patches,
        "patch": backbone.vision.patch[-1],
    }
    for name in ("biomedclip", "vit-b-16-openai"):
        assert None not in declared_sizes(name).model_dump().values()


@pytest.mark.parametrize("name", names())
def test_the_schema_has_each_methods_limits_and_defaults(name: str) -> None:
    config = method(name).Config
    assert limits_of(name) == [
        limit.model_dump(mode="json", exclude_defaults=True) for limit in getattr(config, "LIMITS", ())
    ]
    assert knob_defaults(name) == config().model_dump(mode="json")


def test_what_make_demo_real_sets_is_there_and_fits(project: Project) -> None:
    shutil.copytree(ROOT / "datasets", project.folder / "datasets")
    shutil.copy(ROOT / "params.yaml", project.folder)
    edit_params(project.folder / "params.yaml", read_yaml(ROOT / "experiments" / "demo-real.yaml"))
    outputs = ["--sources", "sources.lock", "--settings", "settings.lock"]
    assert execute("lock", work, outputs, ROOT / "components") == 0
    datasets = {"brain-tumor-detection", "brain-tumor-mri", "pneumoniamnist"}
    assert set(read_yaml(project.folder / "settings.lock")["datasets"]) == datasets
