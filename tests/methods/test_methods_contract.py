"""What every method promises to the programs around it: training, saving, serving and transfer work with any of them.

A new method is tested as soon as its file exists: its knobs are the defaults, made small where they have these names.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from method_bench import CASES, CLASSES, OTHER_CLASSES, Bench
from PIL import Image
from plain_towers import random_model
from safetensors.torch import save_file
from torch import Tensor

from clinprompt.backbones.load import load_backbone
from clinprompt.contract.params_schema import knowledge_of
from clinprompt.data.codecs import decode
from clinprompt.errors import BadParams, Interrupted
from clinprompt.files import write_json
from clinprompt.methods import method
from clinprompt.prompting.base import FeatureMethod, PromptMethod
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.inputs import preprocessing
from clinprompt.tuned.artifact import softmax, write_model
from clinprompt.tuned.record import BackboneRef, ModelRecord
from clinprompt.tuned.restore import answers_of_pixels, restore
from clinprompt.tuned.transfer import moved
from registry.backbone import BackboneFiles
from registry.class_order import write_reversed
from registry.model_script import PromptTunedClassifier
from registry.package import payload_of


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random CLIP of two blocks in each tower."""
    sizes: dict[str, Any] = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    folder.mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**sizes)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p) if p.dim() else 0
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", {"model_cfg": sizes, "preprocess_cfg": {}})
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Bench:
    """open_clip's image tower and its causal text tower."""
    return Bench.of(load_backbone("tiny", clip_folder))


@pytest.fixture(scope="session")
def bert(make_backbone: Callable[[str], Any]) -> Bench:
    """timm's image tower and a BERT."""
    backbone = make_backbone("bert")
    backbone.model = random_model("bert", 2, 2, 2, 8)
    return Bench.of(backbone)


@pytest.fixture(scope="session")
def mean(make_backbone: Callable[[str], Any]) -> Bench:
    """open_clip's image tower as DINOv2's is, and a BERT whose tokens' mean is read out, as of `open-towers`."""
    backbone = make_backbone("mean")
    backbone.model = random_model("mean", 2, 2, 2, 8)
    return Bench.of(backbone)


@pytest.fixture(params=["clip", "bert", "mean"])
def bench(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def record_of(bench: Bench, model: PromptMethod) -> ModelRecord:
    """The record of a trained model, as tune writes it."""
    backbone, head = bench.backbone, model.export_head()
    estimates = model.needed.reports is not None
    return ModelRecord(
        score="mmse" if estimates else None,
        predicts_with="method" if head is None else "head", dataset="toy", candidate=model.name, method=model.name,
        config=model.config.model_dump(mode="json"), seed=5, classes=["a", "b", "c"],
        class_names=list(CLASSES),
        backbone=BackboneRef(name=backbone.name, digest=backbone.digest, embed_dim=backbone.embed_dim),
        preprocessing={}, intensity="auto", manifest="a" * 64, images=model.needed.images, knowledge=None, versions={},
        support="b" * 64, trainable_parameters=1,
    )  # fmt: skip


@torch.no_grad()
def logits_of(model: PromptMethod, examples: Examples) -> Tensor:
    """Of images alone: predictions are made without reports."""
    logits: Tensor = model(Batch(examples.inputs, examples.labels))
    return logits


def assert_same_state(found: PromptMethod, expected: PromptMethod) -> None:
    states = found.state(), expected.state()
    assert states[0].keys() == states[1].keys()
    assert [name for name, tensor in states[1].items() if not torch.equal(states[0][name], tensor)] == []


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_logits_loss_and_gradients_have_their_forms(bench: Bench, name: str, knobs: dict[str, Any]) -> None:
    model, _ = bench.trained(name, knobs)
    batch, trained = bench.examples(model).batch(slice(None)), model.trainable_parameters()
    logits = model(batch)
    assert logits.shape == (12, len(CLASSES))
    assert bool(logits.isfinite().all())
    loss, parts = model.loss(batch, logits)
    assert loss.shape == ()
    if model.gradient_rule() is None:
        torch.testing.assert_close(sum(parts.values(), torch.tensor(0.0)), loss)
    else:  # the parts' gradients are what is descended, and the loss is one of them
        assert any(torch.equal(part, loss) for part in parts.values())
    assert model.descends == bool(trained)
    if trained:  # every one of them is reached: none is unused
        gradients = torch.autograd.grad(sum(parts.values(), torch.tensor(0.0)), list(trained.values()))
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert [key for key, p in bench.backbone.model.named_parameters() if p.requires_grad or p.grad is not None] == []


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_training_changes_every_trained_tensor_and_nothing_else(bench: Bench, name: str, knobs: dict[str, Any]) -> None:
    model, curves = bench.trained(name, knobs)
    before, after = (one.trainable_parameters() for one in (bench.build(name, knobs), model))
    assert [key for key, p in after.items() if torch.equal(p, before[key])] == []
    weights = bench.backbone.model.state_dict()
    assert [key for key, tensor in bench.weights.items() if not torch.equal(weights[key], tensor)] == []
    assert len(curves) == (model.config.epochs if model.descends else 1)
    assert len({tuple(row) for row in curves}) == 1
    assert all(np.isfinite(list(row.values())).all() for row in curves)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_a_saved_model_predicts_the_same_bits_without_the_knowledge_it_learned_from(
    bench: Bench, name: str, knobs: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = bench.trained(name, knobs)
    state = model.state()
    assert set(model.trainable_parameters()) <= set(state)
    assert {(tensor.dtype, tensor.device.type) for tensor in state.values()} <= {(torch.float32, "cpu")}
    save_file(state, tmp_path / "prompts.safetensors")
    again = restore(record_of(bench, model).to_json(), tmp_path / "prompts.safetensors", bench.backbone)
    examples = bench.examples(model, 5, 2)
    assert torch.equal(logits_of(again, examples), logits_of(model, examples))
    assert_same_state(again, model)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_a_head_is_exported_exactly_where_one_gives_the_logits(bench: Bench, name: str, knobs: dict[str, Any]) -> None:
    model, _ = bench.trained(name, knobs)
    head, examples = model.export_head(), bench.examples(model, 60, 2)
    logits = logits_of(model, examples)
    if model.needed.images == "pixels":
        assert head is None
        return
    v = F.normalize(examples.inputs, dim=-1)
    if head is not None:
        expected = head["scale"] * v @ head["weight"].T + head.get("bias", 0.0)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        return
    affine = torch.cat([v, torch.ones(len(v), 1)], dim=1).double()
    nearest = affine @ torch.linalg.lstsq(affine, logits.double()).solution
    assert (logits - nearest).abs().max() > 1e-4
    assert not isinstance(model, FeatureMethod)


@pytest.mark.parametrize(
    ("name", "knobs"), [*CASES, pytest.param("deft_ad", {"phrasings": "paraphrased"}, id="deft_ad-paraphrased")]
)
def test_the_schema_says_which_knowledge_is_needed(clip: Bench, name: str, knobs: dict[str, Any]) -> None:
    assert knowledge_of(name, knobs) == sorted(clip.build(name, knobs).needed.knowledge)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_what_is_trained_serves_other_classes_where_the_method_says_so(
    clip: Bench, name: str, knobs: dict[str, Any]
) -> None:
    model, _ = clip.trained(name, knobs)
    other, trained = clip.build(name, knobs, OTHER_CLASSES), model.trainable_parameters()
    if method(name).transfers(model.config):
        logits = logits_of(moved(other, trained), clip.examples(model, 5))
        assert logits.shape == (5, len(OTHER_CLASSES))
        assert bool(logits.isfinite().all())
        assert all(torch.equal(p, trained[key]) for key, p in other.trainable_parameters().items())
    elif trained:
        with pytest.raises(BadParams, match=f"{name} can't be moved to other classes"):
            moved(other, trained)
    else:  # what was computed in closed form has a class's own rows or columns
        shapes = [{key: tensor.shape for key, tensor in one.state().items()} for one in (model, other)]
        assert shapes[0] != shapes[1]


class Stopping(Checkpoint):
    """Interrupts the training that has just saved itself."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        raise Interrupted("stopped")


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_a_repeated_and_an_interrupted_training_end_with_the_same_bits(
    clip: Bench, name: str, knobs: dict[str, Any], tmp_path: Path
) -> None:
    model, curves = clip.trained(name, knobs)
    again, same = clip.fit(name, knobs)
    assert same == curves
    assert_same_state(again, model)
    if not model.descends:
        return
    file = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        clip.fit(name, knobs, checkpoint=Stopping(file, 3, "same"))
    resumed, same = clip.fit(name, knobs, checkpoint=Checkpoint(file, 3, "same"))
    assert same == curves
    assert_same_state(resumed, model)


# A contrastive loss is that of the images which are there.
CONTRASTIVE = {"deft_ad"}
# Where the loss is no mean over images, or draws at random, parts of a batch see something else.
ONE_BY_ONE: dict[str, dict[str, Any]] = {"biomedcoop": {"tau": 1e6}, "cilmp": {"dropout": 0.0}}


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_two_micro_batches_train_as_one_batch(clip: Bench, name: str, knobs: dict[str, Any]) -> None:
    if not clip.build(name, knobs).descends:
        pytest.skip("descends no gradient")
    if name in CONTRASTIVE:
        pytest.skip("tells the images of a part of a batch apart, not those of all of it")
    # AdamW divides by the gradient, so that rounding becomes steps of its rate.
    knobs = knobs | ONE_BY_ONE.get(name, {}) | {"optimizer": "sgd", "epochs": 2, "learning_rate": 0.002}
    whole, curves = clip.fit(name, knobs)
    parts, same = clip.fit(name, knobs, micro_batches=2)
    for key, tensor in whole.state().items():
        torch.testing.assert_close(parts.state()[key], tensor, atol=1e-5, rtol=1e-5)
    assert [row["loss"] for row in same] == pytest.approx([row["loss"] for row in curves], abs=1e-4)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_the_served_code_predicts_what_the_method_does(
    clip: Bench, clip_folder: Path, name: str, knobs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, curves = clip.trained(name, knobs)
    image = drawn(0)
    preprocess = preprocessing(clip.backbone, model.needed)
    pixels = torch.from_numpy(preprocess.apply(decode(image)))[None]
    answers = answers_of_pixels(model, clip.backbone, pixels).numpy()
    expected = softmax(answers[:, : len(CLASSES)])

    head = model.export_head()
    write_model(
        tmp_path / "model",
        record=record_of(clip, model).model_copy(update={"preprocessing": preprocess.to_dict()}),
        state={key: tensor.numpy() for key, tensor in model.state().items()},
        head=None if head is None else {key: tensor.numpy() for key, tensor in head.items()},
        curves=curves,
        support={"path": [], "id": [], "label": []},
    )
    pd.DataFrame(columns=["class", "aspect", "text", "accepted"]).to_parquet(tmp_path / "descriptions.parquet")
    monkeypatch.setattr("registry.backbone.EMBED_UP_TO", 0)
    monkeypatch.setenv("CLINPROMPT_BACKBONES", str(clip_folder.parent))
    files = BackboneFiles("tiny", clip.backbone.digest, clip_folder)
    payload_of(tmp_path / "model", tmp_path / "descriptions.parquet", files, 10**6).write(tmp_path / "payload")

    monkeypatch.setattr("sys.meta_path", [*sys.meta_path])
    found = served(tmp_path / "payload", image)
    probabilities = found[["p_a", "p_b", "p_c"]].to_numpy()
    np.testing.assert_allclose(probabilities, expected, atol=0 if head is None else 1e-6, rtol=0)
    estimates = [name for name in found.columns if name.endswith("_estimate")]
    assert estimates == (["mmse_estimate"] if model.needed.reports is not None else [])
    np.testing.assert_array_equal(found[estimates].to_numpy(), answers[:, len(CLASSES) :])

    write_reversed(tmp_path / "payload", tmp_path / "reversed")
    turned = served(tmp_path / "reversed", image)
    assert [column for column in turned if column.startswith("p_")] == ["p_c", "p_b", "p_a"]
    numbers = [*estimates, "p_a", "p_b", "p_c"]
    np.testing.assert_allclose(turned[numbers], found[numbers], atol=1e-5, rtol=1e-5)
    assert list(turned["label"]) == list(found["label"])


def drawn(seed: int) -> bytes:
    """A picture of noise, as a PNG."""
    image = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 26, 3), dtype=np.uint8)).save(image, "PNG")
    return image.getvalue()


def served(payload: Path, image: bytes) -> pd.DataFrame:
    """What a payload answers to one image."""
    model = PromptTunedClassifier()
    model.load_context(SimpleNamespace(artifacts={"payload": str(payload)}))
    return model.predict(None, pd.DataFrame({"image": [image]}))
