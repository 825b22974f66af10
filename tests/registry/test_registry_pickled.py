"""A backbone whose weights were published as pickled tensors goes into the payload without the pickle."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_volumes import drawn, nifti
from fabricate import Run
from safetensors.torch import load_file
from test_registry_behaviour_volumes import CLASSES, write_deft_ad

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.backbones.unpickled import as_safetensors
from clinprompt.errors import InputCorrupt
from registry.backbone import BackboneFiles
from registry.model_script import PromptTunedClassifier
from registry.package import Payload, payload_of

Wrapped = Callable[[dict[str, torch.Tensor]], Mapping[str, object]]


def pickled(source: Path, folder: Path, safe: str, name: str, wrapped: Wrapped = dict) -> Path:
    """A copy of a backbone's folder whose weights are pickled tensors."""
    shutil.copytree(source, folder)
    torch.save(wrapped(load_file(folder / safe)), folder / name)
    (folder / safe).unlink()
    return folder


def tuned_on(backbone: Backbone, model: Path, folder: Path) -> Path:
    """A copy of a tuned model, as if it had been tuned on this backbone."""
    shutil.copytree(model, folder)
    record = (folder / "model.yaml").read_text()
    before = next(line.split()[-1] for line in record.splitlines() if line.strip().startswith("digest:"))
    (folder / "model.yaml").write_text(record.replace(before, backbone.digest))
    return folder


def packed(backbone: Backbone, model: Path) -> Payload:
    return payload_of(model, None, BackboneFiles(backbone.name, backbone.digest, backbone.folder), 10**8)


def answers(payload: Payload, folder: Path, images: list[bytes]) -> np.ndarray:
    payload.write(folder)
    model = PromptTunedClassifier()
    model.load_context(SimpleNamespace(artifacts={"payload": str(folder)}))
    table = model.predict(None, pd.DataFrame({"image": images}))
    return table[[name for name in table.columns if name.startswith("p_")]].to_numpy()


def assert_plain(folder: Path) -> None:
    """No file of it is a pickle, nor a zip archive that could hold one."""
    for file in folder.rglob("*"):
        if file.is_file():
            assert not file.read_bytes().startswith((b"\x80", b"PK")), file


@pytest.mark.parametrize("candidate", ["coop-1", "zero_shot-1"])
@pytest.mark.parametrize(
    "wrapped", [dict, lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}}]
)
def test_a_served_model_of_pictures_answers_the_same(
    finished: Run, candidate: str, wrapped: Wrapped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.meta_path", [*__import__("sys").meta_path])
    source, model = finished.root / "backbone", finished.folder / "tune" / candidate
    folder = pickled(source, tmp_path / "own", "open_clip_model.safetensors", "open_clip_pytorch_model.bin", wrapped)
    backbone = load_backbone("own", folder)
    payload = packed(backbone, tuned_on(backbone, model, tmp_path / "model"))
    found = answers(payload, tmp_path / "payload", finished.images(3))
    assert_plain(tmp_path / "payload")
    plain = answers(packed(load_backbone("tiny-clip", source), model), tmp_path / "plain", finished.images(3))
    np.testing.assert_array_equal(found, plain)
    reference = json.loads((tmp_path / "payload" / "model.json").read_text())["backbone"]
    assert reference["digest"] == load_backbone("own", tmp_path / "payload" / "backbone").digest
    assert payload.manifest == packed(backbone, tmp_path / "model").manifest


def test_a_served_model_of_volumes_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.meta_path", [*__import__("sys").meta_path])
    demo, images = load_backbone("demo-m3d"), [nifti(drawn())]
    own = load_backbone("own", pickled(demo.folder, tmp_path / "own", "model.safetensors", "pytorch_model.bin"))
    for backbone, name in ((demo, "plain"), (own, "pickled")):
        write_deft_ad(tmp_path / f"model-{name}", backbone, [0.0, 700.0])
    plain, found = (
        answers(packed(backbone, tmp_path / f"model-{name}"), tmp_path / name, images)
        for backbone, name in ((demo, "plain"), (own, "pickled"))
    )
    assert_plain(tmp_path / "pickled")
    assert found.shape == (1, len(CLASSES))
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("content", [{"visual": Path("x")}, {"epoch": 3}, [torch.zeros(2)], "words"])
def test_what_is_no_weights_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.bin")
    with pytest.raises(InputCorrupt, match=r"weights\.bin holds no weights, which are tensors by name"):
        as_safetensors(tmp_path / "weights.bin")
