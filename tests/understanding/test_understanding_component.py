"""The explain component on a finished run in miniature, its pictures, and the report that shows them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fabricate import CLASSES, COMPONENTS, DATASET, Run, copy_run, fabricate
from PIL import Image

from clinprompt.backbones.load import load_backbone
from clinprompt.data.codecs import decode
from clinprompt.data.manifest import read_manifest
from clinprompt.features.store import write_store
from clinprompt.files import read_json, write_json
from clinprompt.knowledge.outputs import COLUMNS
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.tuned.artifact import model_digest, write_model
from clinprompt.tuned.record import ModelRecord
from clinprompt.understanding import figures
from clinprompt.understanding.intervention import Change
from clinprompt.understanding.space import Planes
from components.explain.__main__ import work as explain
from components.report.__main__ import work as report
from components.runner import execute

SENTENCES = {"bright": ("A bright square.", "It shines."), "dark": ("A dark square.",), "grey": ("A grey square.",)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Run:
    """A run with cached features; nobody writes to it."""
    run = fabricate(tmp_path_factory.mktemp("explained"), root / "params.yaml")
    backbone = load_backbone("tiny-clip", run.root / "backbone")
    rows = read_manifest(run.folder / "validate" / "manifest.parquet").drop_duplicates("id").sort_values("id")
    folder = run.folder / "ingest" / "images"
    pixels = [backbone.preprocessing.apply(decode((folder / file).read_bytes())) for file in rows["file"]]
    features = backbone.encode_images(torch.from_numpy(np.stack(pixels))).numpy()
    identity = {"backbone": {"name": backbone.name, "digest": backbone.digest}}
    write_store(run.folder / "features", identity, rows["id"].tolist(), features)
    table = [
        dict.fromkeys(COLUMNS) | {"class": c, "aspect": "shape", "text": text, "accepted": True}
        for c, texts in SENTENCES.items()
        for text in texts
    ]
    pd.DataFrame(table, columns=COLUMNS).to_parquet(run.folder / "describe" / "descriptions.parquet")
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return copy_run(finished, tmp_path / "run")


def explained(run: Run) -> dict[str, Any]:
    """Run the component; its index."""
    folder = run.folder
    paths = {
        "card": run.root / "datasets" / f"{DATASET}.yaml",
        "manifest": folder / "validate" / "manifest.parquet",
        "images": folder / "ingest" / "images",
        "features": folder / "features",
        "descriptions": folder / "describe" / "descriptions.parquet",
        "models": folder / "tune",
        "decision": run.decision,
        "pictures": folder / "explain",
        "params": run.root / "params.yaml",
    }
    options = ["--dataset", DATASET, *(part for key, path in paths.items() for part in (f"--{key}", str(path)))]
    assert execute("explain", explain, options, COMPONENTS) == 0
    return dict(read_json(folder / "explain" / "index.json"))


def choose(run: Run, name: str, **knobs: Any) -> None:
    """Replace the chosen candidate coop-1 by a model of another method, as it is before training."""
    backbone, config = load_backbone("tiny-clip", run.root / "backbone"), check_config(name, knobs)
    cls = method(name)
    known = Knowledge(tuple(SENTENCES.values()), tuple(torch.randn(5, 8) for _ in CLASSES))
    names = tuple(info.name for info in run.card.classes)
    model = cls(Task(backbone, names, 1, known), config)
    needs = cls.needs(config)
    folder = run.folder / "tune" / "coop-1"
    head = model.export_head()
    changes = {"method": name, "config": config.model_dump(mode="json"), "images": needs.images}
    changes |= {"knowledge": dict.fromkeys(needs.knowledge, "0" * 64) or None}
    changes |= {"predicts_with": "method" if head is None else "head"}
    record = ModelRecord.read(folder / "model.yaml").model_copy(update=changes)
    shutil.rmtree(folder)
    write_model(
        folder,
        record=record,
        state={key: tensor.numpy() for key, tensor in model.state().items()},
        head=None if head is None else {key: tensor.numpy() for key, tensor in head.items()},
        curves=[{"epoch": 0}],
        support={"path": [], "id": [], "label": []},
    )
    decision = read_json(run.decision)
    for one in [decision["chosen"], *decision["candidates"]]:
        if (one["method"], one["seed"]) == ("coop", 1):
            one["model_digest"] = model_digest(folder)
    write_json(run.decision, decision)


def descent(**more: Any) -> dict[str, Any]:
    knobs = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0, "warmup_epochs": 0, "batch_size": 4}
    return knobs | {"warmup_learning_rate": 1e-5, "epochs": 2} | more


def test_a_linear_head_gets_maps_and_a_projection_and_equal_bytes(run: Run) -> None:
    index = explained(run)
    assert index["candidate"]["method"] == "coop"
    assert [item["file"] for item in index["items"]] == ["attention.png", "features.png"]
    assert index["left_out"] == []
    before = {path.name: path.read_bytes() for path in (run.folder / "explain").iterdir()}
    assert set(before) == {"attention.png", "features.png", "index.json"}
    for item in index["items"]:
        assert "does not show" in item["caption"]
        with Image.open(run.folder / "explain" / item["file"]) as image:
            assert min(image.size) > 200
    explained(run)
    assert {path.name: path.read_bytes() for path in (run.folder / "explain").iterdir()} == before


def test_a_method_with_a_teacher_gets_the_table_of_its_sentences(run: Run) -> None:
    choose(
        run, "biomed_dpt", **descent(
            n_ctx=2, class_position="end", template="a photo of a {}.", visual="insert_frozen", n_visual=2,
            l1_weight=1.0, kl_weight=1.0,
        )
    )  # fmt: skip
    index = explained(run)
    assert [item["kind"] for item in index["items"]] == ["figure", "figure", "table"]
    table = pd.read_csv(run.folder / "explain" / "descriptions.csv", keep_default_na=False, dtype=str)
    assert set(table["description"]) == {text for texts in SENTENCES.values() for text in texts}
    assert table.loc[table["class"] == "dark", "net"].tolist() == [""]
    assert all(float(value) != 0 for value in table.loc[table["class"] == "bright", "turned"])


def test_cilmp_gets_the_heat_map_of_its_rows(run: Run) -> None:
    choose(
        run, "cilmp", **descent(
            n_ctx=2, context_init=None, n_ctx_vision=2, text_depth=None, vision_depth=None, prefix_length=2,
            suffix_length=2, rank=2, dropout=0.1, llm_layers=None, normalize_rows=False, averaging=None,
        )
    )  # fmt: skip
    index = explained(run)
    assert [item["file"] for item in index["items"]] == ["attention.png", "features.png", "intervention.png"]


def test_the_report_shows_the_pictures_with_their_captions(run: Run) -> None:
    index = explained(run)
    options = [*run.report_options(), "--pictures", str(run.folder / "explain")]
    assert execute("report", report, options, COMPONENTS) == 0
    html = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "What the tuned model looks at" in html
    for item in index["items"]:
        assert item["title"].replace("'", "&#39;") in html
    assert len(html) < 3_000_000
    copy = (run.folder / "report" / "registry" / "report.html").read_text(encoding="utf-8")
    for item in index["items"]:
        shown = f'<img alt="{item["title"]}"'.replace("'", "&#39;")
        assert shown in html
        assert (shown in copy) == (item["file"] != "attention.png")
    assert "Left out of this copy: it shows patients' images." in copy


def test_without_a_measured_candidate_there_is_an_empty_index(run: Run) -> None:
    decision = read_json(run.decision)
    decision.update(verdict="rejected", chosen=None)
    for candidate in decision["candidates"]:
        candidate.update(val=None, test=None)
    write_json(run.decision, decision)
    assert explained(run)["candidate"] is None


def test_another_model_than_the_judged_one_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    decision = read_json(run.decision)
    for candidate in decision["candidates"]:
        candidate["model_digest"] = "0" * 64
    write_json(run.decision, decision)
    with pytest.raises(AssertionError):
        explained(run)
    assert "is not the model that" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [2, 9])
def test_any_number_of_classes_can_be_drawn(tmp_path: Path, classes: int) -> None:
    rng, names = np.random.default_rng(0), [f"class no. {c}" for c in range(classes)]
    labels = np.arange(3 * classes) % classes
    image, heat = rng.random((16, 16, 3)), rng.random((4, 4))
    examples = [figures.Example(image, c, (heat, np.zeros((4, 4))), (0.2, 0.9)) for c in [0, *range(classes - 1)]]
    plane, texts = rng.normal(size=(3 * classes, 2)), rng.normal(size=(classes, 2))
    changes = Change(rng.random((12, 8)), rng.random((12, 8)), 4, (6, 9))
    drawn = {
        "attention": lambda: figures.attention_figure(examples, names),
        "space": lambda: figures.space_figure(Planes((plane, plane), (texts, None), True, "t-SNE"), labels, names),
        "change": lambda: figures.change_figure(changes, changes),
    }
    for name, draw in drawn.items():
        for k in range(2):
            figures.save(draw(), tmp_path / f"{name}{k}.png")
        assert (tmp_path / f"{name}0.png").read_bytes() == (tmp_path / f"{name}1.png").read_bytes()
