"""`training.processes`: tune in processes that share every batch, as on a machine with several GPUs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from failing import short_of_memory
from safetensors.torch import load_file
from tune_workspace import Workspace

from clinprompt.errors import BatchTooLarge, InputMissing, Interrupted
from clinprompt.training.launch import run_in_processes

pytestmark = pytest.mark.minutes


@pytest.fixture
def vpt(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, root: Path) -> Workspace:
    monkeypatch.setenv("PYTHONPATH", str(root))
    workspace.change({"methods.vpt.epochs": 3, "methods.vpt.batch_size": 7, "training.device": "cpu"})
    return workspace


def test_two_processes_make_the_model_of_one(vpt: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert vpt.tune("vpt", "alone") == 0
    vpt.change({"training.processes": 2})
    assert vpt.tune("vpt", "shared") == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert second["val_accuracy"] == first["val_accuracy"]
    alone, shared = (load_file(vpt.folder / out / "prompts.safetensors") for out in ("alone", "shared"))
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, atol=1e-5, rtol=1e-5)
    records = [yaml.safe_load((vpt.folder / out / "model.yaml").read_text()) for out in ("alone", "shared")]
    assert [record.get("processes") for record in records] == [None, 2]
    assert not list(vpt.folder.glob("*checkpoint*"))


def test_a_method_on_features_needs_no_second_process(vpt: Workspace) -> None:
    assert vpt.tune("coop", "alone") == 0
    vpt.change({"training.processes": 2})
    assert vpt.tune("coop", "shared") == 0
    for file in (vpt.folder / "alone").iterdir():
        assert file.read_bytes() == (vpt.folder / "shared" / file.name).read_bytes()


def test_more_processes_than_gpus_are_refused(
    vpt: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    vpt.change({"training.processes": 3, "training.device": "auto"})
    assert vpt.tune("vpt") == 64
    assert "training.processes: 3 processes need a GPU each, but torch finds 2" in capsys.readouterr().out


def test_an_error_of_one_process_is_told_as_if_it_were_alone(
    vpt: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    vpt.change({"training.processes": 2})
    for image in (vpt.folder / "images").glob("*/*.png"):
        image.unlink()
    assert vpt.tune("vpt") == 66
    assert ".png does not exist" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.parametrize("kind", [BatchTooLarge, InputMissing, torch.OutOfMemoryError])
def test_the_cause_is_told_and_not_what_it_did_to_the_others(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="the second has no room"):
        run_in_processes(2, short_of_memory, kind)


def test_a_stop_is_an_interruption_that_leaves_the_checkpoint_and_no_model(vpt: Workspace, root: Path) -> None:
    vpt.change({"training.processes": 2, "training.checkpoint_every": 1, "methods.vpt.epochs": 400})
    command = [sys.executable, "-m", "components.tune", *vpt.argv("vpt", "out", 1)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    checkpoint = vpt.folder / ".out.checkpoint"
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        while not checkpoint.exists() and running.poll() is None:
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        line, _ = running.communicate()
    assert running.returncode == Interrupted.exit_code
    assert json.loads(line)["message"] == "interrupted; run the same command again to go on."
    assert checkpoint.is_file()
    assert not (vpt.folder / "out").exists()
