"""A model whose answers depend on where a class stands in the list is caught, whatever its method keeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import Run
from fabricate_inputs import CLASSES

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.data.codecs import decode_image
from clinprompt.errors import InputCorrupt
from clinprompt.evaluation.behaviour import Trial
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.tuned.artifact import write_model
from clinprompt.tuned.record import BackboneRef, ModelRecord
from registry.backbone import BackboneFiles
from registry.class_order import write_reversed
from registry.package import Payload, payload_of
from registry.probe import Shown, probe

KNOBS = {"n_prompts": 2, "latent_dim": 2}
HONEST = b"self.head(self.image_features(batch))"


@pytest.fixture(scope="module")
def payload(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """Of a model with trained tensors in the image tower and a linear head behind it."""
    folder = tmp_path_factory.mktemp("dvpt") / "model"
    backbone = load_backbone("tiny-clip", finished.root / "backbone")
    write_dvpt(folder, backbone)
    return payload_of(folder, None, BackboneFiles(backbone.name, backbone.digest, backbone.folder), 10**6)


def write_dvpt(folder: Path, backbone: Backbone) -> None:
    """Untrained, as `tune` would write it."""
    config = check_config("dvpt", KNOBS)
    state = method("dvpt")(Task(backbone, CLASSES, 1), config).state()
    record = ModelRecord(
        predicts_with="method", images="pixels", dataset="tiny", candidate="dvpt", method="dvpt",
        config=config.model_dump(), seed=1, classes=list(CLASSES), class_names=list(CLASSES),
        backbone=BackboneRef(name=backbone.name, digest=backbone.digest, embed_dim=backbone.embed_dim),
        preprocessing=backbone.preprocessing.to_dict(), intensity="auto", trainable_parameters=1, manifest="d" * 64,
        knowledge=None, versions={}, support="d" * 64,
    )  # fmt: skip
    tensors = {name: tensor.numpy() for name, tensor in state.items()}
    support: dict[str, list[str]] = {"path": [], "id": [], "label": []}
    write_model(folder, record=record, state=tensors, head=None, curves=[{"epoch": 0}], support=support)


def tried(payload: Payload, images: list[bytes], folder: Path) -> Any:
    """What a trial finds."""
    shown = Shown(images, np.full((len(images), 3), 1 / 3), CLASSES, [decode_image(one) for one in images])
    return probe(payload, Trial(images=len(images)), shown, folder)


def test_a_model_that_favours_the_class_that_stands_first_is_caught(
    payload: Payload, finished: Run, tmp_path: Path
) -> None:
    name = "code/methods/dvpt.py"
    source = payload.files[name]
    assert isinstance(source, bytes)
    assert source.count(HONEST) == 1
    favouring = source.replace(HONEST, HONEST + b" + torch.eye(3)[0]")
    found = tried(Payload(payload.files | {name: favouring}), finished.images(2), tmp_path)
    assert found.classes is not None
    assert 0.1 < found.classes < 1
    assert found.batch < 1e-5
    assert not found.not_checked or found.not_checked == ["GPU and CPU: there is no GPU"]
    assert "probabilities depend on the order of the classes" in "; ".join(found.faults(0.001))


def test_a_tensor_without_the_classes_that_its_method_says_it_has_is_named(
    payload: Payload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload.write(tmp_path / "payload")
    monkeypatch.setattr(method("dvpt"), "class_axes", lambda config: {"head.weight": 1})
    with pytest.raises(InputCorrupt, match=r"model's head\.weight has the shape \(3, 16\); its axis 1 must have 3"):
        write_reversed(tmp_path / "payload", tmp_path / "reversed")
    assert not (tmp_path / "reversed").exists()
    monkeypatch.setattr(method("dvpt"), "class_axes", lambda config: {"head.bias": 0})
    with pytest.raises(InputCorrupt, match=r"head\.bias is missing"):
        write_reversed(tmp_path / "payload", tmp_path / "reversed")
