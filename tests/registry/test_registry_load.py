"""Serving: what was evaluated is what is served, anywhere, and nothing else is."""

import base64
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fabricate import CLASSES, Run, promote
from PIL import Image
from safetensors.torch import save_file

import registry
from clinprompt.backbones.fetched import fetched_folder
from clinprompt.backbones.load import load_backbone
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import sha256_file
from clinprompt.tuned.record import ModelRecord
from registry import listing, package, served_code, tracking
from registry.backbone import BackboneFiles
from registry.consumer import Champion
from registry.report import attach_report

PROBABILITIES = [f"p_{name}" for name in CLASSES]


@pytest.fixture
def run(promoted: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """A project whose first model is in production."""
    return fresh_copy(promoted)


def champion(name: str = "tiny") -> Champion:
    """The champion, which exists."""
    found = registry.champion(name)
    assert found is not None
    return found


def stored_model(run: Run) -> Path:
    """The MLflow model's folder in the artifact store."""
    return next(run.root.glob("mlartifacts/models/*/artifacts"))


def test_served_probabilities_are_the_evaluated_ones(run: Run) -> None:
    table = pd.read_parquet(run.folder / "evaluate" / "coop-1" / "predictions.parquet")
    expected = table[table["split"] == "test"][PROBABILITIES].to_numpy()
    np.testing.assert_allclose(champion().predict(run.images()), expected, atol=1e-5)


def test_there_is_no_champion_before_the_first_promotion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert registry.champion("tiny") is None
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputMissing, match="No version of 'tiny' carries the alias 'champion'"):
        registry.load("tiny")


def test_a_quick_look_into_the_local_store_agrees_with_mlflow(run: Run) -> None:
    entity = tracking.connect().get_model_version_by_alias("tiny", "champion")
    from registry.versions import by_alias

    quick = by_alias("tiny", "champion")
    assert quick is not None
    assert (quick.name, quick.number, quick.tags) == (entity.name, int(entity.version), entity.tags)
    assert by_alias("tiny", "previous") is None
    assert by_alias("other", "champion") is None


CONSUMER = """
import base64, json, pathlib, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny@champion")
path = pathlib.Path(sys.argv[2])
data = open(path, "rb").read()
forms = [data, base64.b64encode(data).decode(), path]
tables = [model.predict(pd.DataFrame({"image": [form]})) for form in forms]
tables.append(model.predict([{"image": path}]))
assert not {"clinprompt", "registry", "components"} & set(sys.modules), "the repository was imported"
print(json.dumps([table.to_dict("records")[0] for table in tables]))
"""


def test_it_loads_without_this_repository_and_without_pickle(run: Run, tmp_path: Path) -> None:
    rows = pd.read_parquet(run.folder / "evaluate" / "coop-1" / "predictions.parquet")
    row = rows[rows["split"] == "test"].iloc[0]
    image = run.folder / "ingest" / "images" / row["id"][:2] / f"{row['id']}.png"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-I", "-c", CONSUMER, f"sqlite:///{run.root}/mlflow.db", str(image)]
    done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout.splitlines()[-1])
    assert len(records) == 4
    for record in records:
        assert record == records[0]
        assert record["label"] == row["predicted"]
        assert record["probability"] == pytest.approx(row[PROBABILITIES].max(), abs=1e-5)


INVERSION = b"""
_plain = Preprocessing.apply
Preprocessing.apply = lambda self, image: -_plain(self, image)
"""


def test_two_models_in_one_process_keep_their_own_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = run.images()
    first = champion()
    expected = first.predict(images)

    def inverted(record: ModelRecord) -> dict[str, bytes]:
        code = served_code.code_of(record)
        return code | {"code/data/preprocessing.py": code["code/data/preprocessing.py"] + INVERSION}

    for user in ("package", "request"):
        monkeypatch.setattr(f"registry.{user}.code_of", inverted)
    assert promote(run) == 67  # it serves what the gate never judged
    assert champion().version == 1
    monkeypatch.setattr("registry.verify.TOLERANCE", 1.0)
    assert promote(run) == 0
    second = champion()
    assert second.version == 2
    assert np.abs(second.predict(images) - expected).max() > 0.01
    np.testing.assert_array_equal(first.predict(images), expected)
    np.testing.assert_array_equal(champion().predict(images), second.predict(images))


def test_a_row_that_is_no_image_is_named(run: Run) -> None:
    model = registry.load("tiny")
    good = base64.b64encode(run.images(1)[0]).decode()
    for bad in (b"", "no/such/file.png", "AAAA", 3.5):
        with pytest.raises(ValueError, match="Row 1 of the input can't be read as an image"):
            model.predict(pd.DataFrame({"image": [good, bad]}))


def test_the_limit_of_the_validation_holds_for_served_images_too(
    finished: Run, fresh_copy: Callable[[Run], Run]
) -> None:
    run = fresh_copy(finished)
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    params["validation"]["max_pixels"] = 10_000
    (run.root / "params.yaml").write_text(yaml.safe_dump(params))
    assert promote(run) == 0
    model = registry.load("tiny")
    large, limit = (png_of(np.zeros((100, width), np.uint8)) for width in (101, 100))
    assert len(model.predict(pd.DataFrame({"image": [limit]}))) == 1
    with pytest.raises(ValueError, match=r"Row 1 .* too large"):
        model.predict(pd.DataFrame({"image": [limit, large]}))


def png_of(pixels: np.ndarray) -> bytes:
    image = io.BytesIO()
    Image.fromarray(pixels).save(image, "PNG")
    return image.getvalue()


def test_a_batch_is_classified_row_by_row_and_keeps_the_index(run: Run) -> None:
    model = registry.load("tiny")
    images = run.images(3)
    frame = pd.DataFrame({"image": images * 15}, index=range(100, 145))  # more than one batch
    table: Any = model.predict(frame)
    assert list(table.columns) == ["label", "probability", *PROBABILITIES, "prediction_set"]
    assert list(table.index) == list(frame.index)
    np.testing.assert_allclose(table[PROBABILITIES].to_numpy()[:3], champion().predict(images), atol=1e-6)
    np.testing.assert_allclose(table[PROBABILITIES].to_numpy()[42:], table[PROBABILITIES].to_numpy()[:3], atol=1e-6)


def test_requirements_are_pinned_and_the_example_is_small(run: Run) -> None:
    lines = (stored_model(run) / "requirements.txt").read_text().split()
    assert {"mlflow", "torch", "open_clip_torch", "safetensors", "numpy"} <= {line.split("==")[0] for line in lines}
    assert all("==" in line and "+" not in line for line in lines)
    assert len((stored_model(run) / "input_example.json").read_text()) < 1000


def test_a_moved_project_folder_keeps_its_registry(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = run.images(2)
    expected = champion().predict(images)
    moved = tmp_path / "moved"
    run.root.rename(moved)
    monkeypatch.chdir(moved)
    np.testing.assert_array_equal(champion().predict(images), expected)
    assert tracking.connect().get_experiment_by_name("clinprompt").artifact_location == (moved / "mlartifacts").as_uri()


def test_the_payload_is_the_same_bytes_every_time(finished: Run, tmp_path: Path) -> None:
    backbone = load_backbone("tiny-clip", finished.root / "backbone")
    files = BackboneFiles("tiny-clip", backbone.digest, backbone.folder)
    model, descriptions = tmp_path / "model", finished.folder / "describe" / "descriptions.parquet"
    shutil.copytree(finished.folder / "tune" / "coop-1", model)
    plain = package.payload_of(model, descriptions, files, 10**6)
    assert "descriptions.json" not in plain.files
    record = (model / "model.yaml").read_text().replace("knowledge: null", f"knowledge: {{descriptions: {'e' * 64}}}")
    (model / "model.yaml").write_text(record)
    first, second = (
        package.payload_of(model, descriptions, files, 10**6).write(tmp_path / name) for name in ("first", "second")
    )
    assert first == second == sha256_file(tmp_path / "first" / "manifest.json")
    accepted = json.loads((tmp_path / "first" / "descriptions.json").read_text())
    assert [row["class"] for row in accepted] == sorted(CLASSES)
    assert not any("script" in row["text"] for row in accepted)


def test_a_backbone_other_than_the_tuned_one_is_refused(finished: Run, tmp_path: Path) -> None:
    files = BackboneFiles("tiny-clip", "0" * 64, finished.root / "backbone")
    model, descriptions = finished.folder / "tune" / "coop-1", finished.folder / "describe" / "descriptions.parquet"
    with pytest.raises(InputCorrupt, match="was tuned on the backbone tiny-clip"):
        package.payload_of(model, descriptions, files, 10**6)


@pytest.fixture
def referenced(finished: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A promoted model whose backbone was too large to go along."""
    run = fresh_copy(finished)
    monkeypatch.setattr("registry.backbone.EMBED_UP_TO", 0)
    assert promote(run) == 0  # which finds it where params.yaml has it, under whatever name
    (run.root / "backbone").rename(run.root / "tiny-clip")
    monkeypatch.setenv("CLINPROMPT_BACKBONES", str(run.root))
    return run


def test_a_large_backbone_is_found_by_name_and_checked(referenced: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = champion()
    assert not (found.folder / "backbone").exists()
    table = pd.read_parquet(referenced.folder / "evaluate" / "coop-1" / "predictions.parquet")
    expected = table[table["split"] == "test"][PROBABILITIES].to_numpy()
    np.testing.assert_allclose(found.predict(referenced.images()), expected, atol=1e-5)
    monkeypatch.delenv("CLINPROMPT_BACKBONES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(referenced.root / "cache"))
    with pytest.raises(ValueError, match="set CLINPROMPT_BACKBONES"):
        registry.load("tiny")
    fetched = fetched_folder("tiny-clip")
    fetched.parent.mkdir(parents=True)
    (referenced.root / "tiny-clip").rename(fetched)
    np.testing.assert_allclose(champion().predict(referenced.images()), expected, atol=1e-5)


def test_a_large_backbone_with_other_weights_is_refused(referenced: Run) -> None:
    with (referenced.root / "tiny-clip" / "open_clip_model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="was changed after the model was registered"):
        registry.load("tiny")


def script() -> ModuleType:
    """The served script as a module."""
    spec = importlib.util.spec_from_file_location("served_script", served_code.SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_the_image_tower_of_a_biomedclip_shaped_folder_is_loaded_without_its_text_tower(
    tmp_path: Path, weights: str
) -> None:
    from open_clip import CustomTextCLIP

    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    model = CustomTextCLIP(**config).eval()
    # The text tower that the folder names can't be had here: loading it would fail.
    config["text_cfg"] = {"hf_model_name": "no-such/text-model", "hf_tokenizer_name": "no-such/text-model"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if weights.endswith(".bin"):
        torch.save(state, tmp_path / weights)
    else:
        save_file(state, tmp_path / weights)
    reference = {"config": "open_clip_config.json", "weights": weights}
    tower = script()._image_tower(tmp_path, reference)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), model.encode_image(pixels))


@pytest.fixture
def read_only(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A registry that was copied elsewhere, in a folder that nobody may write to; permissions do not bind root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    shutil.copy(run.root / "mlflow.db", folder)
    shutil.copytree(run.root / "mlartifacts", folder / "mlartifacts")
    shutil.rmtree(run.root / "mlartifacts")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    access = os.access
    inside = str(folder)
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not (mode == os.W_OK and inside in str(path))
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    yield run
    for path in paths:
        path.chmod(0o700)


def test_a_registry_that_can_only_be_read_is_read(read_only: Run, tmp_path: Path) -> None:
    store = tmp_path / "read-only" / "mlflow.db"
    before = store.read_bytes()
    images = read_only.images(2)
    table = registry.load("tiny").predict(pd.DataFrame({"image": images}))
    assert len(table) == len(images)
    assert [one["name"] for one in listing.models()] == ["tiny", "tiny-candidate"]
    assert store.read_bytes() == before
    assert {path.name for path in store.parent.iterdir()} == {"mlflow.db", "mlartifacts"}


def test_a_registry_that_can_only_be_read_is_not_changed(read_only: Run, tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="can only be read here, so nothing was changed"):
        registry.rollback("tiny", "bad")
    with pytest.raises(BadParams, match="can only be read here"):
        attach_report("tiny", 1, read_only.folder / "report.html")
