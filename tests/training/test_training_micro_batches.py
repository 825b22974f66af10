"""Micro-batches in the tune component: the same model in less memory, and what is said when that is not enough."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from clinprompt.backbones.load import load_backbone
from clinprompt.data.manifest import write_manifest
from clinprompt.features.store import write_store
from clinprompt.files import sha256_bytes
from clinprompt.methods.coop import CoOp
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.prompting.context import ContextConfig
from clinprompt.training.loop import Run, descend
from components.runner import execute
from components.tune.__main__ import work

VARIABLE = "CLINPROMPT_MICRO_BATCHES"
CLASSES = ("bright", "dark")
KNOBS = {"batch_size": 8, "epochs": 3, "learning_rate": 0.05}


@pytest.fixture
def workspace(tmp_path: Path, backbone_folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that tune reads: 24 training and 8 validation images of two classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["backbone"] = {"name": "mine", "path": str(backbone_folder)}
    params["methods"]["coop"] = KNOBS
    Path("params.yaml").write_text(yaml.safe_dump(params))
    card = {"name": "toy", "title": "T", "modality": "MRI", "organ": "brain", "licence": "CC0", "source": "made up"}
    card |= {"how_to_get": "make it", "reader": {"kind": "folder"}}
    card["classes"] = [{"id": c, "name": c, "phrase": f"a {c} square"} for c in CLASSES]
    Path("toy.yaml").write_text(yaml.safe_dump(card))
    ids = sorted(sha256_bytes(str(i).encode()) for i in range(32))
    labels = np.arange(32) % 2
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(32)], "id": ids, "label": np.array(CLASSES)[labels]})
    frame = frame.assign(file=frame["id"] + ".png", split=["train"] * 24 + ["val"] * 8, modality="MRI", age=np.nan)
    write_manifest(frame.assign(patient=None, site=None, sex=None), Path("manifest.parquet"))
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(2, 12))[labels] + rng.normal(size=(32, 12))).astype(np.float32)
    write_store(
        Path("features"), {"backbone": {"digest": load_backbone("mine", backbone_folder).digest}}, ids, features
    )
    for name in ("descriptions.parquet", "hidden_states.safetensors"):
        Path(name).write_bytes(b"not read by these methods")
    return tmp_path


def tune(out: str, method: str = "coop") -> int:
    """Run the component; the exit code."""
    values = {
        "dataset": "toy", "candidate": method, "seed": 1, "card": "toy.yaml", "manifest": "manifest.parquet",
        "images": ".", "features": "features", "descriptions": "descriptions.parquet",
        "hidden-states": "hidden_states.safetensors",
        "model": out, "params": "params.yaml",
    }  # fmt: skip
    argv = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    return execute("tune", work, argv, Path(__file__).parents[2] / "components")


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The component's last result line."""
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def give_room_for(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CoOp run out of memory, as on a GPU, for more images at once."""
    forward = CoOp.forward

    def crowded(self: CoOp, batch: Batch) -> Tensor:
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, batch)

    monkeypatch.setattr(CoOp, "forward", crowded)


def test_the_gradient_of_four_micro_batches_is_that_of_the_batch(backbone_folder: Path) -> None:
    config = ContextConfig(
        n_ctx=4, context_init="a photo of a", class_specific=False, class_position="end", momentum=0.9,
        weight_decay=0.0005, warmup_epochs=0, warmup_learning_rate=0.01, learning_rate=0.01, batch_size=10, epochs=1,
    )  # fmt: skip
    labels = np.arange(10) % 2
    examples = Examples.of(np.random.default_rng(0).normal(size=(10, 12)), labels)
    gradients = []
    for parts in (1, 4):
        method = CoOp(Task(load_backbone("mine", backbone_folder), CLASSES, 1), config)
        descend(method, examples, examples, config, Run(1, micro_batches=parts))
        assert method.ctx.grad is not None
        gradients.append(method.ctx.grad)
    assert float(gradients[0].abs().max()) > 1e-4
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-7)


def test_out_of_memory_falls_to_smaller_micro_batches_and_the_same_model(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert tune("whole") == 0
    assert "micro_batches" not in yaml.safe_load(Path("whole/model.yaml").read_text())
    monkeypatch.setenv(VARIABLE, "4")
    assert tune("four") == 0
    monkeypatch.delenv(VARIABLE)
    give_room_for(2, monkeypatch)
    assert tune("fallen") == 0
    assert ["8 images at a time" in line or "4 images at a time" in line for line in caplog.messages] == [True, True]
    assert VARIABLE not in os.environ
    for file in ("model.yaml", "prompts.safetensors", "curves.csv"):
        assert Path("fallen", file).read_bytes() == Path("four", file).read_bytes()
    expected, found = (load_file(Path(name, "prompts.safetensors"))["ctx"] for name in ("whole", "fallen"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_no_room_for_a_single_image_ends_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_room_for(0, monkeypatch)
    assert tune("out") == 64
    assert "running again won't help" in result(capsys)["message"]
    assert not Path("out").exists()


def test_methods_without_batches_take_no_notice(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tune("whole", "zero_shot") == 0
    monkeypatch.setenv(VARIABLE, "4")
    assert tune("parts", "zero_shot") == 0
    assert Path("whole/model.yaml").read_bytes() == Path("parts/model.yaml").read_bytes()


def test_a_wrong_number_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "many")
    assert tune("out") == 64
    assert "CLINPROMPT_MICRO_BATCHES must be a whole number of at least 1, found 'many'" in result(capsys)["message"]
