"""CLIP-Adapter and Tip-Adapter against their formulas, written as loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from clinprompt.methods import check_config, method
from clinprompt.prompting.base import PromptMethod, Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("no tumour", "glioma", "meningioma of the brain")
TEMPLATE = "an MRI of {}."
KNOBS: dict[str, dict[str, Any]] = {
    "clip_adapter": {
        "template": TEMPLATE, "reduction": 4, "mix": 0.5, "learning_rate": 0.5, "weight_decay": 0.0,
        "warmup_epochs": 1, "warmup_learning_rate": 1e-5, "batch_size": 8, "epochs": 6,
    },
    "tip_adapter": {
        "template": TEMPLATE, "finetune": False, "init_alpha": 1.17, "init_beta": 1.0, "max_alpha": 3.0,
        "max_beta": 7.0, "optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.01, "epsilon": 1e-4,
        "warmup_epochs": 0, "warmup_learning_rate": 1e-5, "batch_size": 8, "epochs": 6,
    },
}  # fmt: skip
CASES = [("clip_adapter", {}), ("tip_adapter", {}), ("tip_adapter", {"finetune": True})]


@pytest.fixture
def build(make_backbone: Callable[[str], Any]) -> Callable[..., Any]:
    def make(name: str, kind: str = "clip", seed: int = 1, **knobs: Any) -> Any:
        return method(name)(Task(make_backbone(kind), NAMES, seed), check_config(name, KNOBS[name] | knobs))

    return make


def unit(row: Tensor) -> Tensor:
    return row / math.sqrt(float((row * row).sum().detach()))


def sentence(backbone: Any, name: str) -> Tensor:
    return unit(backbone.model.encode_text(backbone.tokenize([TEMPLATE.format(name)]))[0])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]),
    n=st.integers(1, 5),
    reduction=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_clip_adapter_is_its_formula(
    build: Callable[..., Any], make_backbone: Callable[[str], Any], kind: str, n: int, reduction: int, seed: int
) -> None:
    model, backbone = build("clip_adapter", kind, seed, reduction=reduction, mix=0.3), make_backbone(kind)
    inputs = torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))
    found = model(Examples(inputs, torch.zeros(n)).batch(slice(None)))
    down, up = model.adapter[0].weight, model.adapter[2].weight
    assert down.shape == (max(1, 12 // reduction), 12)
    for b in range(n):
        f = unit(inputs[b])
        adapted = (up @ (down @ f).clamp(min=0)).clamp(min=0)
        mixed = unit(0.3 * adapted + 0.7 * f)
        for c, name in enumerate(NAMES):
            assert float(found[b, c]) == pytest.approx(
                20 * float((mixed @ sentence(backbone, name)).detach()), abs=1e-4
            )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]), n=st.integers(3, 9), seed=st.integers(0, 9), finetune=st.booleans()
)
def test_tip_adapter_is_its_formula(
    build: Callable[..., Any],
    make_backbone: Callable[[str], Any],
    make_examples: Callable[..., Examples],
    kind: str,
    n: int,
    seed: int,
    finetune: bool,
) -> None:
    model, backbone = build("tip_adapter", kind, seed, finetune=finetune, epochs=1), make_backbone(kind)
    train, val = make_examples(n, 3, seed), make_examples(7, 3, seed + 1)
    fit(model, train, val, Run(seed))
    found = model(val.batch(slice(None)))
    alpha, beta = float(model.alpha), float(model.beta)
    for b in range(len(val)):
        v = unit(val.inputs[b])
        for c, name in enumerate(NAMES):
            cache = 0.0
            for i in range(n):
                key = model.keys[i] if finetune else unit(train.inputs[i])
                cache += math.exp(-beta * (1 - float(v @ key))) * float(train.labels[i] == c)
            expected = 20 * float(v @ sentence(backbone, name)) + alpha * cache
            assert float(found[b, c]) == pytest.approx(expected, abs=1e-4)


def test_tip_adapter_takes_the_best_of_the_published_grid(
    build: Callable[..., Any], make_examples: Callable[..., Examples]
) -> None:
    model = build("tip_adapter")
    train, val = make_examples(12, 3, 0, 2.0), make_examples(40, 3, 1, 2.0)
    [row] = fit(model, train, val, Run(1))
    hits: dict[tuple[float, float], int] = {}
    batch = val.batch(slice(None))
    for i in range(0, 200, 9):
        for j in range(20):
            model.beta, model.alpha = torch.tensor(0.1 + i * 6.9 / 200), torch.tensor(0.1 + j * 2.9 / 20)
            hits[i, j] = int((model(batch).argmax(-1) == batch.labels).sum())
    assert round(row["val_accuracy"] * len(val)) >= max(hits.values())
    assert 0.1 <= row["beta"] < 7
    assert 0.1 <= row["alpha"] < 3


def test_the_search_has_the_size_that_is_asked_for(
    build: Callable[..., Any], make_examples: Callable[..., Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = build("tip_adapter", max_alpha=50.0, max_beta=50.0, alpha_steps=3, beta_steps=4), []
    monkeypatch.setattr(model, "_ask", lambda affinity, alpha, beta: asked.append(beta) or torch.zeros(7, 3))
    model.start(make_examples(6, 3, 0), make_examples(7, 3, 1))
    model.finish(make_examples(7, 3, 1))
    assert asked == pytest.approx([0.1 + k * 49.9 / 4 for k in range(4)])


def test_only_the_finetuned_keys_are_trained(build: Callable[..., Any], make_examples: Callable[..., Examples]) -> None:
    train, val = make_examples(12, 3, 0, 2.0), make_examples(9, 3, 1, 2.0)
    cached, tuned = build("tip_adapter"), build("tip_adapter", finetune=True)
    for model in (cached, tuned):
        fit(model, train, val, Run(1))
    assert cached.trainable_parameters() == {}
    assert (cached.trained_count(), tuned.trained_count()) == (2, 2 + 12 * 12)
    assert {name: p.shape for name, p in tuned.trainable_parameters().items()} == {"keys": (12, 12)}
    torch.testing.assert_close(cached.keys.norm(dim=-1), torch.ones(12))
    assert (tuned.keys - cached.keys).abs().max() > 1e-3
    assert torch.equal(tuned.values, cached.values)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_training_is_repeatable_and_helps(
    build: Callable[..., Any], make_examples: Callable[..., Examples], name: str, knobs: dict[str, Any]
) -> None:
    train, val = make_examples(48, 3), make_examples(30, 3, 1)
    models: list[PromptMethod] = [build(name, **knobs) for _ in range(2)]
    curves = [fit(model, train, val, Run(1)) for model in models]
    assert curves[0] == curves[1]
    first, second = (model.state() for model in models)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert len({tuple(row) for row in curves[0]}) == 1  # one set of columns
    assert curves[0][-1]["val_accuracy"] > 0.5
    assert models[0].export_head() is None
