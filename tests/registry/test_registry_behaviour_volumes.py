"""A candidate over volumes is tried out as one over pictures is: a changed volume is a volume's file again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_volumes import drawn, nifti

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.data.codecs import decode_image
from clinprompt.data.codecs.base import Intensity
from clinprompt.evaluation.behaviour import Trial
from clinprompt.evaluation.rules import parse_rules
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import PromptMethod, Task
from clinprompt.tuned.artifact import softmax, write_model
from clinprompt.tuned.record import BackboneRef, ModelRecord
from clinprompt.tuned.restore import answers_of_pixels
from registry.backbone import BackboneFiles
from registry.package import payload_of
from registry.probe import CHANGES, Shown, encoded, probe

CLASSES = ("healthy", "atrophy")
KNOBS = {"n_prompts": 2, "n_text_prompts": 1}


@pytest.mark.parametrize("intensity", ["full", [100.0, 900.0]])
def test_a_volume_is_written_so_that_its_greys_and_its_grid_are_read_again(intensity: Intensity) -> None:
    affine = np.diag([0.9, 1.1, 2.0, 1.0])
    image = decode_image(nifti(drawn(), affine), [100.0, 900.0])
    again = decode_image(encoded(image, intensity), intensity)
    np.testing.assert_array_equal(again.values, image.values)
    assert again.spacing == image.spacing == (2.0, 1.1, 0.9)


def test_greys_that_are_stretched_as_those_of_any_file_are_read_again_but_for_rounding() -> None:
    image = decode_image(nifti(drawn()), "auto")
    again = decode_image(encoded(image, "auto"), "auto")
    assert np.abs(again.values.astype(int) - image.values).max() <= 1


def test_a_model_of_volumes_is_tried_out_with_all_that_the_rule_asks(tmp_path: Path) -> None:
    backbone = load_backbone("demo-m3d")
    intensity = [0.0, 700.0]
    write_deft_ad(tmp_path / "tuned", backbone, intensity)
    images = [nifti(drawn(seed=seed)) for seed in range(3)]
    decoded = [decode_image(one, intensity) for one in images]
    pixels = torch.from_numpy(np.stack([backbone.preprocessing.apply(one) for one in decoded]))
    with torch.no_grad():
        answers = answers_of_pixels(built(backbone), backbone, pixels).double().numpy()
    judged = softmax(answers[:, : len(CLASSES)])
    files = BackboneFiles(backbone.name, backbone.digest, backbone.folder)
    payload = payload_of(tmp_path / "tuned", None, files, 10**8)
    (tmp_path / "probe").mkdir()
    found = probe(payload, Trial(images=3), Shown(images, judged, CLASSES, decoded), tmp_path / "probe")
    assert found.problem is None
    assert found.flipped is not None
    assert not [what for what in found.not_checked if "photometric" in what]
    assert found.judged is not None
    assert found.judged < 1e-4
    assert found.classes is not None
    assert found.classes < 1e-4
    others = [
        {"kind": "floor", "metric": "accuracy", "at_least": 0.0},
        {"kind": "not_worse_than_champion", "margin": 0.1},
    ]
    rule = parse_rules([*others, {"kind": "behaviour", "images": 3, "at_most_flipped": 1.0}])[-1]
    assert rule.still_fails(found, lambda trial: found) is None
    written = sorted(path.name for path in (tmp_path / "probe").glob("*-0"))
    assert len(written) == 2 + len(CHANGES)


def built(backbone: Backbone) -> PromptMethod:
    """Untrained; the same each time."""
    return method("deft_ad")(Task(backbone, CLASSES, 1), check_config("deft_ad", KNOBS)).eval()


def write_deft_ad(folder: Path, backbone: Backbone, intensity: list[float]) -> None:
    """As `tune` would write it."""
    record = ModelRecord(
        predicts_with="method",
        images="pixels",
        dataset="heads",
        candidate="deft_ad",
        method="deft_ad",
        config=check_config("deft_ad", KNOBS).model_dump(),
        seed=1,
        classes=list(CLASSES),
        class_names=list(CLASSES),
        backbone=BackboneRef(name=backbone.name, digest=backbone.digest, embed_dim=backbone.embed_dim),
        preprocessing=backbone.preprocessing.to_dict(),
        intensity=intensity,
        trainable_parameters=1,
        manifest="d" * 64,
        knowledge=None,
        versions={},
        support="d" * 64,
    )
    state = {name: tensor.numpy() for name, tensor in built(backbone).state().items()}
    support: dict[str, list[str]] = {"path": [], "id": [], "label": []}
    write_model(folder, record=record, state=state, head=None, curves=[{"epoch": 0}], support=support)
