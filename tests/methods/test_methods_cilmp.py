"""CILMP against a plain path that follows the released trainer, on random shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from benchmarks import methods_cilmp as benchmark
from benchmarks.plain import cilmp as plain
from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("glioma", "no tumour", "pituitary adenoma")
D = 20
CONFIG: dict[str, Any] = {
    "n_ctx": 4, "context_init": "a photo of a", "n_ctx_vision": 3, "text_depth": None, "vision_depth": None,
    "prefix_length": 2, "suffix_length": 2, "rank": 3, "dropout": 0.0, "llm_layers": None, "normalize_rows": False,
    "averaging": None, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 1,
    "warmup_learning_rate": 1e-5, "batch_size": 4, "epochs": 4,
}  # fmt: skip


def knowledge(counts: tuple[int, ...], seed: int = 0) -> Knowledge:
    generator = torch.Generator().manual_seed(seed)
    return Knowledge(hidden_states=tuple(torch.randn(n, D, generator=generator) for n in counts))


def cilmp(backbone: Any, counts: tuple[int, ...] = (6, 6, 6), seed: int = 1, **knobs: Any) -> Any:
    task = Task(backbone, NAMES[: len(counts)], seed, knowledge(counts))
    return method("cilmp")(task, check_config("cilmp", CONFIG | knobs))


def shaken(model: Any) -> Any:
    """The model with parameters far from their initial values, so that every part matters."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def pixels(n: int = 4, seed: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def examples(model: Any, n: int = 8) -> Examples:
    with torch.no_grad():
        needed = model.needed.images == "pixels"
        images = model.prepare(pixels(n)) if needed else model.backbone.model.encode_image(pixels(n))
    return Examples(images, torch.arange(n) % len(NAMES))


def gradients(loss: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    named = model.trainable_parameters()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(4, 9), min_size=1, max_size=3),
    images=st.integers(1, 3),
    text_depth=st.sampled_from([1, 2, None]),
    vision_depth=st.sampled_from([0, None]),
    ends=st.sampled_from([(2, 2), (0, 3), (4, 0)]),
)
def test_it_equals_the_plain_path(
    make_backbone: Callable[[str], Any],
    kind: str,
    counts: list[int],
    images: int,
    text_depth: int | None,
    vision_depth: int | None,
    ends: tuple[int, int],
) -> None:
    prefix, suffix = ends
    depths = {"text_depth": text_depth, "vision_depth": vision_depth}
    model = shaken(cilmp(make_backbone(kind), tuple(counts), **depths, prefix_length=prefix, suffix_length=suffix))
    inputs = pixels(images) if vision_depth == 0 else model.prepare(pixels(images))
    if vision_depth == 0:
        inputs = model.backbone.model.encode_image(inputs)
    v, t = model.features(Batch(inputs, torch.zeros(images, dtype=torch.int64)))
    plain_v, plain_t = plain.features(model, pixels(images))
    torch.testing.assert_close(v, plain_v, atol=1e-5, rtol=0)
    torch.testing.assert_close(t, plain_t, atol=1e-5, rtol=0)
    weights = torch.randn(t.shape, generator=torch.Generator().manual_seed(3))
    found, expected = (gradients((t * weights).sum() + v.sum(), model) for v, t in ((v, t), (plain_v, plain_t)))
    for name, gradient in found.items():
        bound = 1e-4 * expected[name].abs().max().item() + 1e-6
        assert (gradient - expected[name]).abs().max().item() <= bound, name


def test_dropout_is_on_the_intervened_rows_and_only_in_training(make_backbone: Callable[[str], Any]) -> None:
    model = shaken(cilmp(make_backbone("clip"), dropout=0.5, vision_depth=0))
    batch = examples(model).batch(slice(None))
    model.eval()
    quiet = model(batch)
    torch.testing.assert_close(quiet, model(batch), atol=0, rtol=0)
    model.train()
    torch.manual_seed(0)
    assert (model(batch) - quiet).abs().max() > 1e-3
    untouched = shaken(cilmp(make_backbone("clip"), dropout=0.5, vision_depth=0, prefix_length=0, suffix_length=0))
    untouched.train()
    torch.testing.assert_close(untouched(batch), untouched.eval()(batch), atol=0, rtol=0)


def test_the_prompts_are_averaged_and_the_rest_is_not(make_backbone: Callable[[str], Any]) -> None:
    knobs = {"learning_rate": 0.01, "epochs": 3}
    plainly = cilmp(make_backbone("clip"), **knobs)
    data = examples(plainly)
    ends: list[dict[str, torch.Tensor]] = []

    class Watched:
        def __init__(self, every: int) -> None:
            self.every = every

        def restore(self, *args: Any) -> list[dict[str, float]]:
            return []

        def save(self, parameters: dict[str, torch.Tensor], *args: Any) -> None:
            ends.append({name: p.detach().clone() for name, p in parameters.items()})

    watched: Any = Watched(1)
    fit(plainly, data, data, Run(seed=3, checkpoint=watched))
    ends.append({name: p.detach().clone() for name, p in plainly.trainable_parameters().items()})
    averaged = cilmp(make_backbone("clip"), **knobs, averaging={"mean": 3, "std": 1})
    fit(averaged, data, data, Run(seed=3))
    weights = torch.tensor([-2.0, -0.5, 0.0]).exp()
    weights /= weights.sum()
    for name, tensor in averaged.trainable_parameters().items():
        mean = sum(w * end[name] for w, end in zip(weights, ends, strict=True))
        expected = ends[-1][name] if name.startswith("text_layers.") else mean
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"text_depth": 3}, r"methods\.cilmp .*: text_depth: must be at most 2, the blocks of .* text tower, found 3"),
        ({"vision_depth": 3}, r"vision_depth: must be at most 2, the blocks of .* image tower, found 3"),
        ({"llm_layers": [0, 6]}, r"llm_layers: must be below 6, the language model's rows, found \[0, 6\]"),
        ({"text_depth": 3, "vision_depth": 3}, r"text_depth: .* found 3; vision_depth: .* found 3\."),
        ({"prefix_length": 5}, r"prefix_length \+ suffix_length: must be at most 6, .* model's rows, found 7"),
    ],
)
def test_knobs_that_do_not_fit_are_refused(
    make_backbone: Callable[[str], Any], knobs: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadParams, match=message):
        cilmp(make_backbone("clip"), **knobs)


def test_more_rows_than_the_tower_reads_are_refused(make_backbone: Callable[[str], Any]) -> None:
    with pytest.raises(BadParams, match=r"'no tumour' has 25 tokens with 16 rows .* reads 24; pick fewer rows"):
        cilmp(make_backbone("clip"), counts=(6, 16, 6))
    with pytest.raises(BadParams, match=r"n_ctx: must be at most 0 \(24, .* less 22 rows .* prompt\), found 4"):
        cilmp(make_backbone("clip"), counts=(6, 22, 6))


@pytest.mark.slow
def test_the_text_path_needs_an_eighth_of_the_flops_at_full_size() -> None:
    """ViT-B/16, a language model of width 4096, 8 classes, 8 images; FLOPs grow linearly with the images."""
    model = benchmark.build(classes=8)
    one, two = (benchmark.flops(benchmark.ours, model, images) for images in (1, 2))
    assert 8 * benchmark.flops(plain.text_features, model, 1) / (one + 7 * (two - one)) >= 8


def test_the_number_of_kernels_does_not_depend_on_the_number_of_images(make_backbone: Callable[[str], Any]) -> None:
    model = cilmp(make_backbone("clip"), vision_depth=0)
    counts = []
    for images in (2, 7):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            model.text_features(torch.ones(images, model.backbone.embed_dim)).sum().backward()
        counts.append(sum(event.name.startswith("aten::") for event in profiled.events()))
    assert counts[0] == counts[1]
