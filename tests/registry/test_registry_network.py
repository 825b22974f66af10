"""Models that need their method's code to predict: tuned, evaluated, promoted, and served without this repository."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from fabricate import CLASSES, COMPONENTS, DATASET, Run, promote

import registry
from clinprompt.errors import InputCorrupt
from clinprompt.files import read_json
from clinprompt.tuned.record import ModelRecord
from components.cache.__main__ import work as cache
from components.evaluate.__main__ import work as evaluate
from components.runner import execute
from components.tune.__main__ import work as tune
from registry import served_code
from registry.consumer import Champion

PROBABILITIES = [f"p_{name}" for name in CLASSES]
DESCENT = {
    "learning_rate": 0.05, "weight_decay": 0.0, "warmup_epochs": 0, "warmup_learning_rate": 1e-5, "batch_size": 6,
    "epochs": 3,
}  # fmt: skip
KNOBS: dict[str, dict[str, Any]] = {
    "clip_adapter": {"template": "a {}.", "reduction": 4, "mix": 0.5} | DESCENT,
    "vpt": {"n_prompts": 2, "depth": None, "head": "cosine", "template": "a {}."} | DESCENT,
}


def options(run: Run, stage: str, method: str) -> list[str]:
    folder, name = run.folder, f"{method}-1"
    paths = {
        "card": run.root / "datasets" / f"{DATASET}.yaml",
        "manifest": folder / "validate" / "manifest.parquet",
        "images": folder / "ingest" / "images",
        "features": folder / "features",
        "params": run.root / "params.yaml",
    }
    described = {"descriptions": "descriptions.parquet", "hidden-states": "descriptions.parquet"}
    if stage == "tune":
        paths |= {key: folder / "describe" / file for key, file in described.items()}
        paths["model"] = folder / "tune" / name
    if stage == "evaluate":
        paths |= {"model": folder / "tune" / name, "metrics": folder / "metrics" / f"{name}.json"}
        paths |= {"summary": folder / "summary" / f"{name}.json"}
        paths |= {key: folder / "evaluate" / name / file for key, file in OUTPUTS.items()}
    asked = [] if stage == "cache" else ["--candidate", method, "--seed", "1"]
    return ["--dataset", DATASET, *asked, *(part for key, path in paths.items() for part in (f"--{key}", str(path)))]


OUTPUTS = {"predictions": "predictions.parquet", "plots": "plots"}
STAGES = {"cache": cache, "tune": tune, "evaluate": evaluate}


def train(run: Run, method: str, **training: Any) -> None:
    """Tune and evaluate a candidate with the components, and choose it."""
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    params["methods"][method] = KNOBS[method]
    params["candidates"]["methods"] = [method]
    params["training"] |= training
    (run.root / "params.yaml").write_text(yaml.safe_dump(params))
    for stage, work in STAGES.items():
        assert execute(stage, work, options(run, stage, method), COMPONENTS) == 0
    run.decide(f"{method}-1", floor=0.0)


@pytest.fixture(scope="module")
def served(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Projects whose champion was tuned with a method; each is made once, nobody writes to it."""
    from fabricate import copy_run

    made: dict[str, Run] = {}

    def get(method: str) -> Run:
        if method not in made:
            run = copy_run(finished, tmp_path_factory.mktemp(method))
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(run.root)
                patch.delenv("MLFLOW_TRACKING_URI", raising=False)
                train(run, method)
                assert promote(run) == 0
            made[method] = run
        return made[method]

    return get


def champion() -> Champion:
    found = registry.champion("tiny")
    assert found is not None
    return found


def evaluated(run: Run, method: str) -> np.ndarray:
    table = pd.read_parquet(run.folder / "evaluate" / f"{method}-1" / "predictions.parquet")
    return table[table["split"] == "test"][PROBABILITIES].to_numpy()


CONSUMER = """
import json, pathlib, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny@champion")
table = model.predict(pd.DataFrame({"image": [pathlib.Path(path) for path in sys.argv[2:]]}))
named = [name for name in sys.modules if name.partition(".")[0] in ("clinprompt", "registry", "components")]
assert not named, f"the repository was imported: {named}"
print(json.dumps(table.drop(columns=["label", "probability", "prediction_set"]).to_numpy().tolist()))
"""


def test_served_without_this_repository_it_predicts_what_was_evaluated(
    served: Callable[[str], Run], tmp_path: Path
) -> None:
    run = served("vpt")
    table = pd.read_parquet(run.folder / "evaluate" / "vpt-1" / "predictions.parquet")
    ids = table[table["split"] == "test"]["id"]
    images = [str(run.folder / "ingest" / "images" / one[:2] / f"{one}.png") for one in ids]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-I", "-c", CONSUMER, f"sqlite:///{run.root}/mlflow.db", *images]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert found.std() > 1e-3
    np.testing.assert_allclose(found, evaluated(run, "vpt"), atol=1e-5)


def test_the_payload_says_what_it_is(served: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = served("vpt")
    monkeypatch.chdir(run.root)
    record = ModelRecord.read(run.folder / "tune" / "vpt-1" / "model.yaml")
    assert (record.predicts_with, record.images) == ("method", "pixels")
    assert not (run.folder / "tune" / "vpt-1" / "head.safetensors").exists()
    found = champion()
    folder = found.folder
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    code = set(served_code.code_of(record))
    assert {"code/methods/vpt.py", "code/tuned/restore.py", "code/data/codecs/png.py"} <= code
    backbone = {"backbone/open_clip_config.json", "backbone/open_clip_model.safetensors"}
    rest = {"manifest.json", "model.json", "calibration.json", "prompts.safetensors"}
    assert files == code | backbone | rest
    assert not any("methods/coop" in name or "validation" in name or "ingest" in name for name in code)
    lines = (folder.parents[1] / "requirements.txt").read_text().split()
    assert {"pydantic", "pyyaml", "transformers", "torch", "timm"} <= {line.split("==")[0] for line in lines}
    card = (folder.parent / "record" / "model_card.md").read_text()
    assert "the method's own code predicts" in card


def test_two_versions_of_the_code_in_one_process_stay_apart(
    served: Callable[[str], Run], fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh_copy(served("vpt"))
    images = run.images(4)
    first = champion()
    expected = first.predict(images)

    def changed(record: ModelRecord) -> dict[str, bytes]:
        code = served_code.code_of(record)
        text = code["code/methods/vpt.py"].decode()
        other = text.replace("return logits", "return 0 * logits")
        assert other != text
        return code | {"code/methods/vpt.py": other.encode()}

    for user in ("package", "request"):
        monkeypatch.setattr(f"registry.{user}.code_of", changed)
    monkeypatch.setattr("registry.verify.TOLERANCE", 1.0)  # it serves what the gate never judged
    assert promote(run) == 0
    second = champion()
    assert second.version == first.version + 1
    np.testing.assert_allclose(second.predict(images), 1 / 3)
    np.testing.assert_array_equal(first.predict(images), expected)
    assert promote(run) == 0
    assert read_json(run.receipt)["version"] == second.version  # nothing to do


@pytest.mark.parametrize("name", ["code/methods/vpt.py", "code/__init__.py", "prompts.safetensors"])
def test_a_tampered_file_is_refused_before_any_of_it_runs(
    served: Callable[[str], Run], fresh_copy: Callable[[Run], Run], name: str
) -> None:
    run = fresh_copy(served("vpt"))
    [model] = run.root.glob("mlartifacts/models/*/artifacts")
    with (model / "artifacts" / "payload" / name).open("ab") as file:
        file.write(b"\nraise SystemExit('this ran')\n")
    with pytest.raises(InputCorrupt, match="was changed after registration"):
        registry.load("tiny")
    import mlflow

    with pytest.raises(ValueError, match="was changed after the model was registered"):
        mlflow.pyfunc.load_model(str(model))


def test_a_large_backbone_is_found_by_name_with_its_text_tower(
    served: Callable[[str], Run], fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh_copy(served("clip_adapter"))
    (run.root / "mlflow.db").unlink()
    monkeypatch.setattr("registry.backbone.EMBED_UP_TO", 0)
    assert promote(run) == 0
    (run.root / "backbone").rename(run.root / "tiny-clip")
    monkeypatch.setenv("CLINPROMPT_BACKBONES", str(run.root))
    assert not (champion().folder / "backbone").exists()
    np.testing.assert_allclose(champion().predict(run.images()), evaluated(run, "clip_adapter"), atol=1e-5)


def test_augmentation_and_precision_are_knobs_of_training(
    served: Callable[[str], Run],
    fresh_copy: Callable[[Run], Run],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fresh_copy(served("vpt"))
    folder = run.folder / "tune" / "vpt-1"
    monkeypatch.setattr("clinprompt.tuned.session.computes_bfloat16", lambda device: False)

    def tuned(**training: Any) -> tuple[bytes, dict[str, Any]]:
        params = yaml.safe_load((run.root / "params.yaml").read_text())
        params["training"] |= {"device": "cpu", "augmentation": "none", "precision": "float32"} | training
        (run.root / "params.yaml").write_text(yaml.safe_dump(params))
        assert execute("tune", tune, options(run, "tune", "vpt"), COMPONENTS) == 0
        return (folder / "prompts.safetensors").read_bytes(), yaml.safe_load((folder / "model.yaml").read_text())

    plain, spec = tuned()
    assert (spec["augmentation"], spec.get("precision")) == ("none", None)
    augmented, spec = tuned(augmentation="crop_flip")
    assert (spec["augmentation"], augmented == plain) == ("crop_flip", False)
    assert tuned(augmentation="crop_flip")[0] == augmented
    assert tuned(precision="bfloat16") == tuned()
    assert "bfloat16 needs a GPU, or a CPU with instructions for it; training in float32" in caplog.text
    monkeypatch.setattr("clinprompt.tuned.session.computes_bfloat16", lambda device: True)
    mixed, spec = tuned(precision="bfloat16")
    assert (spec["precision"], mixed == tuned()[0]) == ("bfloat16", False)
