"""What methods are fed in training, and how a tuned one is built again; on images, knowledge and a small backbone."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from clinprompt.data.codecs import decode
from clinprompt.data.load import load_card
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.errors import DataRejected, InputCorrupt, InputMissing
from clinprompt.features import precompute as precompute_module
from clinprompt.files import sha256_bytes
from clinprompt.knowledge.outputs import COLUMNS
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Needs, Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit
from clinprompt.training.inputs import knowledge
from clinprompt.training.loop import Run
from clinprompt.tuned.artifact import load_model, model_digest, write_model
from clinprompt.tuned.record import BackboneRef, ModelRecord
from clinprompt.tuned.restore import logits, restore

NAMES = ("no tumour", "glioma", "meningioma")
KNOBS: dict[str, Any] = {
    "template": "an MRI of {}.", "reduction": 4, "mix": 0.5, "learning_rate": 0.5, "weight_decay": 0.0,
    "warmup_epochs": 0, "warmup_learning_rate": 1e-5, "batch_size": 8, "epochs": 3,
}  # fmt: skip
PREPROCESSING = Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path: Path) -> list[tuple[str, Path]]:
    """71 images, one of them twice."""
    rng, items = np.random.default_rng(0), []
    for number in range(70):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(out, "PNG")
        path = tmp_path / f"{number}.png"
        path.write_bytes(out.getvalue())
        items.append((sha256_bytes(out.getvalue()), path))
    return [*items, items[3]]


def tokens(pixels: Tensor) -> Tensor:
    return pixels.flatten(2).transpose(1, 2)[:, ::7]


@pytest.mark.parametrize("mapped", [False, True])
def test_every_image_is_prepared_once_and_in_its_row(
    images: list[tuple[str, Path]], tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute_module, "IN_MEMORY", 0 if mapped else 1 << 30)
    before = sorted(tmp_path.iterdir())
    found = precompute_module.precompute(tokens, images, PREPROCESSING, CPU, intensity="auto", folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == before  # the mapped file has no name
    assert found.shape == (71, 37, 3)
    for row, (_, path) in zip(found, images, strict=True):
        pixels = torch.from_numpy(PREPROCESSING.apply(decode(path.read_bytes())))
        assert torch.equal(row, tokens(pixels[None])[0])
    batch = Examples(found, torch.arange(71)).batch(np.array([70, 3, 5]))
    assert torch.equal(batch.inputs[0], batch.inputs[1])
    assert batch.inputs.clone().requires_grad_(True).sum().backward() is None


def test_a_changed_image_is_named(images: list[tuple[str, Path]], tmp_path: Path) -> None:
    images[5][1].write_bytes(b"other")
    with pytest.raises(InputCorrupt, match=r"5\.png is not the one that the manifest lists"):
        precompute_module.precompute(tokens, images, PREPROCESSING, CPU, intensity="auto", folder=tmp_path)


@pytest.fixture
def job(tmp_path: Path, root: Path) -> Any:
    """A job with descriptions and hidden states of the classes of a card."""
    card = load_card(root / "datasets" / "brain-phantom.yaml")
    rows = [
        {"class": label, "aspect": "shape", "text": f"{label} {number}", "accepted": number != 1}
        for label in card.class_ids
        for number in range(3)
    ]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    table.to_parquet(tmp_path / "descriptions.parquet")
    states = {label: torch.full((3, 4), float(n)) for n, label in enumerate(card.class_ids)}
    save_file(states, tmp_path / "hidden_states.safetensors")
    inputs = {
        "descriptions": tmp_path / "descriptions.parquet", "hidden_states": tmp_path / "hidden_states.safetensors",
    }  # fmt: skip
    return SimpleNamespace(inputs=inputs, card=card, table=table, states=states)


BOTH = Needs("features", frozenset({"descriptions", "hidden_states"}))


def test_knowledge_comes_in_the_order_of_the_classes(job: Any) -> None:
    found = knowledge(BOTH, job.card.class_ids, job.inputs["descriptions"], job.inputs["hidden_states"])
    assert found.descriptions == tuple((f"{label} 0", f"{label} 2") for label in job.card.class_ids)
    assert [float(rows[0, 0]) for rows in found.hidden_states] == [float(n) for n in range(len(job.card.class_ids))]
    assert found.hidden_states[0].shape == (3, 4)


def test_knowledge_that_is_not_needed_is_not_read(job: Any) -> None:
    for path in job.inputs.values():
        path.write_bytes(b"no such format")
    found = knowledge(Needs(), job.card.class_ids, job.inputs["descriptions"], job.inputs["hidden_states"])
    assert (found.descriptions, found.hidden_states) == ((), ())


def test_a_class_without_an_accepted_description_is_named(job: Any) -> None:
    last = job.card.class_ids[-1]
    job.table.loc[job.table["class"] == last, "accepted"] = False
    job.table.to_parquet(job.inputs["descriptions"])
    with pytest.raises(DataRejected, match=f"class '{last}' has no accepted description.*knowledge"):
        knowledge(BOTH, job.card.class_ids, job.inputs["descriptions"], job.inputs["hidden_states"])


def test_a_class_without_hidden_states_is_named(job: Any) -> None:
    first = job.card.class_ids[0]
    save_file({k: v for k, v in job.states.items() if k != first}, job.inputs["hidden_states"])
    with pytest.raises(InputCorrupt, match=f"no hidden states of the class '{first}'"):
        knowledge(BOTH, job.card.class_ids, job.inputs["descriptions"], job.inputs["hidden_states"])
    job.inputs["hidden_states"].write_bytes(b"torn")
    with pytest.raises(InputCorrupt, match="hidden_states.safetensors can't be read"):
        knowledge(BOTH, job.card.class_ids, job.inputs["descriptions"], job.inputs["hidden_states"])


@pytest.fixture
def tuned(make_backbone: Callable[[str], Any], make_examples: Callable[..., Examples], tmp_path: Path) -> Any:
    """A CLIP-Adapter, trained and written to `folder`."""
    backbone, train = make_backbone("clip"), make_examples(24, 3)
    model = method("clip_adapter")(Task(backbone, NAMES, 1), check_config("clip_adapter", KNOBS))
    curves = fit(model, train, train, Run(1))
    record = ModelRecord(
        predicts_with="method", dataset="toy", candidate="clip_adapter", method="clip_adapter",
        config=model.config.model_dump(mode="json"),
        seed=1, classes=["a", "b", "c"], class_names=list(NAMES), images="features", intensity="auto",
        backbone=BackboneRef(name=backbone.name, digest=backbone.digest, embed_dim=backbone.embed_dim),
        preprocessing={}, manifest="a" * 64, knowledge=None, versions={},
        support="b" * 64, trainable_parameters=1,
    )  # fmt: skip
    state = {name: tensor.numpy() for name, tensor in model.state().items()}
    support = {"path": ["x"], "id": ["y"], "label": ["a"]}
    folder = tmp_path / "model"
    write_model(folder, record=record, state=state, head=None, curves=curves, support=support)
    return SimpleNamespace(folder=folder, model=model, backbone=backbone, tensors=folder / "prompts.safetensors")


def test_a_model_without_a_head_is_built_again(tuned: Any, make_examples: Callable[..., Examples]) -> None:
    found = load_model(tuned.folder)
    assert (found.head, found.record.predicts_with) == (None, "method")
    assert not (tuned.folder / "head.safetensors").exists()
    again = restore(found.record.to_json(), tuned.tensors, tuned.backbone)
    inputs = make_examples(7, 3, 2).inputs
    assert torch.equal(logits(again, inputs), logits(tuned.model, inputs))
    assert not again.training


def test_its_digest_counts_its_tensors_and_its_record(tuned: Any) -> None:
    before = model_digest(tuned.folder)
    (tuned.folder / "curves.csv").write_text("epoch\n")
    assert model_digest(tuned.folder) == before
    for name in ("prompts.safetensors", "model.yaml"):
        content = (tuned.folder / name).read_bytes()
        (tuned.folder / name).write_bytes(content + b" ")
        assert model_digest(tuned.folder) != before
        (tuned.folder / name).write_bytes(content)
    tuned.tensors.unlink()
    with pytest.raises(InputMissing, match=r"prompts\.safetensors"):
        model_digest(tuned.folder)


def test_what_does_not_fit_is_said(tuned: Any) -> None:
    spec = load_model(tuned.folder).record.to_json()
    other = spec | {"backbone": spec["backbone"] | {"digest": "f" * 64}}
    with pytest.raises(InputCorrupt, match="was tuned on the backbone ffffffffffff"):
        restore(other, tuned.tensors, tuned.backbone)
    with pytest.raises(InputCorrupt, match="config.mixx: no such key"):
        restore(spec | {"config": spec["config"] | {"mixx": 1}}, tuned.tensors, tuned.backbone)
    with pytest.raises(InputCorrupt, match="there is no method 'gone'"):
        restore(spec | {"method": "gone"}, tuned.tensors, tuned.backbone)
    with pytest.raises(InputCorrupt, match=r"adapter\.0\.weight has the shape"):
        restore(spec | {"config": spec["config"] | {"reduction": 3}}, tuned.tensors, tuned.backbone)
    with pytest.raises(InputMissing, match="does not exist"):
        restore(spec, tuned.tensors.with_name("none"), tuned.backbone)
    tuned.tensors.write_bytes(b"torn")
    with pytest.raises(InputCorrupt, match="can't be read"):
        restore(spec, tuned.tensors, tuned.backbone)
