"""The tune component and the folder that it writes, on a small random backbone and made-up features."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from tune_workspace import CLASSES, Workspace

from clinprompt.backbones.load import load_backbone
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.data.manifest import read_manifest, write_manifest
from clinprompt.errors import InputCorrupt, InputMissing, Interrupted
from clinprompt.methods import check_config
from clinprompt.prompting.batches import epoch_rows
from clinprompt.tuned.artifact import load_model, model_digest

FILES = ["curves.csv", "head.safetensors", "model.yaml", "prompts.safetensors", "sources.json", "support.parquet"]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_a_model_tells_that_it_was_tuned_on_dicom_files(workspace: Workspace) -> None:
    assert workspace.tune("zero_shot") == 0
    assert "dicom" not in (workspace.folder / "out" / "model.yaml").read_text()
    manifest = workspace.folder / "manifest.parquet"
    frame = read_manifest(manifest)
    frame.loc[3, "file"] = frame.loc[3, "file"].replace(".png", ".dcm")
    write_manifest(frame, manifest)
    assert workspace.tune("zero_shot") == 0
    assert load_model(workspace.folder / "out").record.dicom


@pytest.mark.parametrize("method", ["zero_shot", "linear_probe", "coop"])
def test_a_method_writes_a_complete_model_and_the_same_bytes_again(
    workspace: Workspace, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workspace.tune(method) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert workspace.tune(method, "again") == 0
    folder = workspace.folder / "out"
    assert sorted(contents(folder)) == FILES
    assert contents(folder) == contents(workspace.folder / "again")
    spec = yaml.safe_load((folder / "model.yaml").read_text())
    assert (spec["dataset"], spec["candidate"], spec["method"], spec["seed"]) == ("toy", method, method, 1)
    assert (spec["predicts_with"], spec["images"]) == ("head", "features")
    assert spec["config"] == check_config(method, workspace.params["methods"].get(method, {})).model_dump(mode="json")
    assert (spec["classes"], spec["class_names"]) == (list(CLASSES), ["glioma", "meningioma", "no tumour"])
    assert spec["backbone"]["name"] == "mine"
    assert spec["preprocessing"]["size"] == 16
    assert spec["knowledge"] is None
    assert (
        spec["trainable_parameters"]
        == {"zero_shot": 0, "coop": 4 * 16, "linear_probe": 3 * (spec["backbone"]["embed_dim"] + 1)}[method]
    )
    assert line["model_digest"] == load_model(folder).digest == model_digest(folder)
    curves = pd.read_csv(folder / "curves.csv")
    assert len(curves) == (12 if method == "coop" else 1)
    assert line["val_accuracy"] == pytest.approx(curves["val_accuracy"].iloc[-1], abs=1e-4)
    assert str(workspace.folder) not in (folder / "model.yaml").read_text()


def test_the_artifact_gives_the_probabilities_of_the_methods_logits(
    workspace: Workspace, backbone_folder: Path
) -> None:
    workspace.tune("coop")
    model = load_model(workspace.folder / "out")
    assert model.head is not None
    ctx = load_file(workspace.folder / "out" / "prompts.safetensors")["ctx"]
    backbone = load_backbone("mine", backbone_folder)
    ids = backbone.tokenize([f"a photo of a {name}." for name in ("glioma", "meningioma", "no tumour")])
    embeddings = backbone.text.embed(ids)
    embeddings[:, 1:5] = ctx
    text = F.normalize(backbone.text.encode(embeddings, ids), dim=-1)
    features = np.random.default_rng(1).normal(size=(7, 12)).astype(np.float32)
    logits = backbone.logit_scale * F.normalize(torch.from_numpy(features), dim=-1) @ text.T
    np.testing.assert_allclose(model.head.probabilities(features), logits.double().softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(model.head.probabilities(features).sum(1), 1, atol=1e-12)


def test_what_reads_the_cached_features_alone_builds_no_backbone(workspace: Workspace, root: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from components.tune.__main__ import work;"
        "from components.runner import execute;"
        f"code = execute('tune', work, sys.argv[1:], Path({str(root / 'components')!r}));"
        "assert not {'open_clip', 'timm', 'torchvision'} & set(sys.modules); sys.exit(code)"
    )
    env, argv = os.environ | {"PYTHONPATH": str(root)}, workspace.argv("linear_probe", "alone", 1)
    subprocess.run([sys.executable, "-c", script, *argv], cwd=workspace.folder, env=env, check=True)
    assert workspace.tune("linear_probe") == 0
    assert contents(workspace.folder / "alone") == contents(workspace.folder / "out")


def test_another_seed_is_another_model(workspace: Workspace) -> None:
    workspace.tune("coop", "a", 1)
    workspace.tune("coop", "b", 2)
    assert model_digest(workspace.folder / "a") != model_digest(workspace.folder / "b")
    assert contents(workspace.folder / "a")["curves.csv"] != contents(workspace.folder / "b")["curves.csv"]


def test_few_shots_are_the_support_set(workspace: Workspace) -> None:
    workspace.change({"training.shots": 4})
    workspace.tune("linear_probe")
    support = pd.read_parquet(workspace.folder / "out" / "support.parquet")
    assert list(support.columns) == ["path", "id", "label"]
    assert support["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 4)
    manifest = pd.read_parquet(workspace.folder / "manifest.parquet").set_index("path")
    assert set(manifest.loc[support["path"], "split"]) == {"train"}


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.tune("coop", "whole") == 0

    def rows(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        if epoch == 7:
            raise Interrupted("stopped by SIGTERM")
        return epoch_rows(n, batch_size, seed, epoch)

    with monkeypatch.context() as patch:
        patch.setattr("clinprompt.training.loop.epoch_rows", rows)
        assert workspace.tune("coop", "model") == ExitCode.INTERRUPTED
    left = sorted(p.name for p in workspace.folder.iterdir() if "model" in p.name)
    assert left == [".model.checkpoint"]
    assert workspace.tune("coop", "model") == 0
    assert contents(workspace.folder / "model") == contents(workspace.folder / "whole")
    assert not (workspace.folder / ".model.checkpoint").exists()


@pytest.mark.slow
@pytest.mark.minutes
def test_a_killed_process_leaves_nothing_half_written_and_the_next_one_ends_with_the_same_bytes(
    workspace: Workspace, root: Path
) -> None:
    workspace.change({"methods.coop.epochs": 400, "training.checkpoint_every": 10})
    command = [sys.executable, "-m", "components.tune", *workspace.argv("coop", "model", 1)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (workspace.folder / ".model.checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workspace.folder / "model").exists()
    assert workspace.tune("coop", "model") == 0
    assert workspace.tune("coop", "whole") == 0
    assert contents(workspace.folder / "model") == contents(workspace.folder / "whole")


def other_backbone(w: Workspace) -> None:
    w.write_data("f" * 64)


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (other_backbone, ExitCode.INPUT_CORRUPT, "run the cache stage again"),
        (lambda w: w.change({"methods.coop.n_ctxx": 4}), ExitCode.BAD_PARAMS, "methods.coop.n_ctxx: no such key"),
        (lambda w: w.change({"training.shots": 99}), ExitCode.DATA_REJECTED, "training.shots asks for 99"),
        (lambda w: w.write_data("", ("train", "none")), ExitCode.DATA_REJECTED, "no image of the class 'none'"),
        (lambda w: w.write_data("", ("val", "")), ExitCode.DATA_REJECTED, "validation split of toy is empty"),
        (lambda w: (w.folder / "features" / "store.json").unlink(), ExitCode.INPUT_MISSING, "store.json"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_left(
    workspace: Workspace,
    spoil: Callable[[Workspace], None],
    code: ExitCode,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(workspace)
    assert workspace.tune("coop") == code
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert message in line["message"]
    assert not [p.name for p in workspace.folder.iterdir() if "out" in p.name]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_taken(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.change({"training.device": "cuda"})
    assert workspace.tune("zero_shot") == ExitCode.BAD_PARAMS
    assert "training.device" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["head.safetensors", "prompts.safetensors", "model.yaml"])
def test_a_missing_file_of_a_model_is_named(workspace: Workspace, name: str) -> None:
    workspace.tune("zero_shot")
    (workspace.folder / "out" / name).unlink()
    with pytest.raises(InputMissing, match=name):
        load_model(workspace.folder / "out")


@pytest.mark.parametrize(
    ("name", "content"),
    [("head.safetensors", "torn"), ("model.yaml", "a: b: c"), ("model.yaml", "classes: []\nbackbone: {}\nformat: 1\n")],
)
def test_a_damaged_file_of_a_model_is_named(workspace: Workspace, name: str, content: str) -> None:
    workspace.tune("zero_shot")
    (workspace.folder / "out" / name).write_text(content)
    with pytest.raises(InputCorrupt, match=name):
        load_model(workspace.folder / "out")


def test_any_byte_of_prompts_head_or_record_changes_the_digest_and_the_curves_do_not(workspace: Workspace) -> None:
    workspace.tune("zero_shot")
    folder = workspace.folder / "out"
    before = model_digest(folder)
    (folder / "curves.csv").write_text("epoch\n")
    assert model_digest(folder) == before
    for name in ("head.safetensors", "prompts.safetensors", "model.yaml"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        assert model_digest(folder) != before
        (folder / name).write_bytes(content)


def test_two_settings_of_one_method_are_two_candidates(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.change({"candidates.methods": ["coop", "coop-2"], "methods.coop.epochs": 2})
    workspace.change({"candidates.variants": {"coop-2": {"method": "coop", "n_ctx": 2, "context_init": ""}}})
    for name in ("coop", "coop-2"):
        assert workspace.tune(name, f"{name}-1") == 0
    shapes = {n: load_file(workspace.folder / f"{n}-1/prompts.safetensors")["ctx"].shape for n in ("coop", "coop-2")}
    assert shapes == {"coop": (4, 16), "coop-2": (2, 16)}
    spec = yaml.safe_load((workspace.folder / "coop-2-1/model.yaml").read_text())
    assert (spec["candidate"], spec["method"]) == ("coop-2", "coop")
    assert (spec["config"]["context_init"], spec["config"]["epochs"]) == (None, 2)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["candidate"] == "coop-2"


def test_an_unknown_candidate_is_named(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert workspace.tune("copo") == ExitCode.BAD_PARAMS
    assert "'copo' is neither a method nor one of candidates.variants (did you mean 'coop'?)" in capsys.readouterr().err
