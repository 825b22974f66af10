"""Methods that tune a text context, against steps that are written plainly: whole contexts, loops, the image tower."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain.text import Plain
from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("glioma", "large cell lung carcinoma", "no tumour")
SENTENCES = (
    ("glioma dark and round", "glioma bright"),
    ("carcinoma of the large kind", "a spot", "two spots and a rim", "no rim"),
    ("nothing", "an even texture", "no spot"),
)
DESCENT: dict[str, Any] = {
    "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 1, "warmup_learning_rate": 1e-5,
    "batch_size": 8, "epochs": 6, "n_ctx": 4, "class_position": "end",
}  # fmt: skip
WORDS = {"context_init": "a photo of a"}
KNOBS: dict[str, dict[str, Any]] = {
    "coop": WORDS,
    "kgcoop": WORDS | {"template": "a scan of {} .", "kg_weight": 3.0},
    "prograd": WORDS | {"template": "a scan of {} .", "temperature": 2.0, "strength": 1.0},
    "biomedcoop": WORDS | {"sccm_weight": 5.0, "kdsp_weight": 0.7, "tau": 1.0},
    "biomed_dpt": {
        "template": "a CT photo of {} in the brain .", "visual": "replace_patches", "n_visual": 2, "l1_weight": 4.0,
        "kl_weight": 0.9,
    },
    "cocoop": WORDS,
}  # fmt: skip
KINDS = ("clip", "bert", "mean")


def build(
    name: str, backbone: Any, names: tuple[str, ...] = NAMES, sentences: Any = SENTENCES, seed: int = 1, **knobs: Any
) -> Any:
    task = Task(backbone, names, seed, None if sentences is None else Knowledge(descriptions=sentences))
    return method(name)(task, check_config(name, DESCENT | KNOBS[name] | knobs))


def pixels_of(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def examples_for(model: Any, backbone: Any, n: int, seed: int = 0) -> Examples:
    """Random images at the level that the method reads."""
    pixels = pixels_of(n, seed)
    with torch.no_grad():
        needs = model.needed
        inputs = model.prepare(pixels) if needs.images == "pixels" else backbone.model.encode_image(pixels)
    return Examples(inputs, torch.arange(n) % len(NAMES))


def plain_step(name: str, model: Any, backbone: Any, ids: torch.Tensor, sentences: Any, batch: Any) -> Any:
    """The plain path's logits and loss parts, and its knobs read from the method's."""
    plain, knobs, (pixels, labels) = Plain(backbone.model, ids, backbone.logit_scale), model.config, batch
    with torch.no_grad():
        bank = [backbone.model.encode_text(backbone.tokenize(list(some))) for some in sentences]
    given_to: dict[str, dict[str, Any]] = {"coop": {}, "cocoop": {"meta_net": getattr(model, "meta_net", None)}}
    if name == "kgcoop":
        given_to[name] = {"teacher_ids": backbone.tokenize([f"a scan of {n} ." for n in model.task_names])}
        given_to[name]["weight"] = knobs.kg_weight
    if name == "biomedcoop":
        given_to[name] = {"bank": bank, "sccm": knobs.sccm_weight, "kdsp": knobs.kdsp_weight, "tau": knobs.tau}
    if name == "biomed_dpt":
        visual = None if knobs.visual == "replace_patches" else model.visual
        given_to[name] = {"bank": bank, "l1": knobs.l1_weight, "kl": knobs.kl_weight}
        given_to[name] |= {"n_visual": knobs.n_visual, "visual": visual}
    return getattr(plain, name)(model.ctx, pixels, labels, **given_to[name])


def gradients(loss: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    parameters = model.trainable_parameters()
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(["coop", "kgcoop", "biomedcoop", "biomed_dpt", "cocoop"]),
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    counts=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    n_ctx=st.integers(1, 4),
    own=st.booleans(),
    images=st.integers(1, 4),
    visual=st.sampled_from(["replace_patches", "insert_frozen", "insert_trainable"]),
    seed=st.integers(0, 99),
)
def test_logits_loss_parts_and_gradients_equal_the_plain_steps(
    make_backbone: Callable[[str], Any],
    *,
    name: str,
    kind: str,
    lengths: list[int],
    counts: list[int],
    n_ctx: int,
    own: bool,
    images: int,
    visual: str,
    seed: int,
) -> None:
    backbone, rng = make_backbone(kind), np.random.default_rng(seed)
    names = tuple(" ".join([*(f"w{rng.integers(20)}" for _ in range(n - 1)), f"v{i}"]) for i, n in enumerate(lengths))
    sentences = tuple(
        tuple(" ".join(f"d{rng.integers(9)}" for _ in range(rng.integers(1, 9))) for _ in range(counts[c]))
        for c in range(len(names))
    )
    phrase = " ".join(f"c{i}" for i in range(4))
    tail = " d1 d2 ." if name == "biomed_dpt" else "."
    knobs: dict[str, Any] = {"visual": visual, "template": f"{phrase} {{}}{tail}"} if name == "biomed_dpt" else {}
    if name != "biomed_dpt":
        knobs["context_init"] = phrase
    model = build(name, backbone, names, sentences, n_ctx=n_ctx, class_specific=own, **knobs)
    model.task_names = names
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.from_numpy(rng.normal(size=tuple(parameter.shape))).float()
    pixels, labels = pixels_of(images, seed), torch.from_numpy(rng.integers(0, len(names), images))
    with torch.no_grad():
        inputs = model.prepare(pixels) if name == "biomed_dpt" else backbone.model.encode_image(pixels)
    batch = Batch(inputs, labels)

    if name == "biomed_dpt" and visual != "replace_patches" and not model.visual.requires_grad:
        assert not model.visual.any()
    logits = model(batch)
    loss, parts = model.loss(batch, logits)
    found = gradients(loss, model)
    ids = backbone.tokenize([f"{phrase} {n}{tail}" for n in names])
    expected_logits, expected = plain_step(name, model, backbone, ids, sentences, (pixels, labels))
    wanted = gradients(sum(expected.values(), torch.tensor(0.0)), model)

    torch.testing.assert_close(logits, expected_logits, atol=2e-4, rtol=0)
    assert set(parts) == set(expected)
    for part, value in parts.items():
        torch.testing.assert_close(value, expected[part], atol=2e-4, rtol=1e-4)
    for key, value in found.items():
        assert (value - wanted[key]).abs().max() <= 2e-4 * wanted[key].abs().max() + 1e-6, key


@pytest.mark.parametrize("kind", KINDS)
def test_prograd_descends_the_projected_gradient(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = make_backbone(kind)
    conflicts = set()
    for seed in range(6):
        model = build("prograd", backbone, strength=0.8)
        with torch.no_grad():
            model.ctx += torch.randn(model.ctx.shape, generator=torch.Generator().manual_seed(seed))
        before, inputs = model.ctx.detach().clone(), examples_for(model, backbone, 6, seed).inputs
        v, t = model.features(Batch(inputs, inputs))
        ids = backbone.tokenize([f"a scan of {n} ." for n in NAMES])
        zero_shot = backbone.logit_scale * v @ F.normalize(backbone.model.encode_text(ids), dim=-1).T
        logits = backbone.logit_scale * v @ t.T
        # Labels as the teacher would have them, or as it wouldn't: so that the gradients agree, or don't.
        train = Examples(inputs, zero_shot.argmax(-1) if seed % 2 else zero_shot.argmin(-1))
        batch, q = train.batch(slice(None)), (zero_shot / 2).softmax(-1)
        divergence = (q * (q.log() - (logits / 2).log_softmax(-1))).sum(-1).mean()
        (domain,) = torch.autograd.grad(F.cross_entropy(logits, batch.labels), model.ctx, retain_graph=True)
        (general,) = torch.autograd.grad(divergence, model.ctx)
        dot = float((domain * general).sum())
        conflicts.add(dot < 0)
        wanted = domain - (0.8 * dot / float(general.square().sum()) * general if dot < 0 else 0)
        knobs = {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "warmup_learning_rate": 0.5, "strength": 0.8}
        trained = build("prograd", backbone, **knobs)
        trained.load_state({"ctx": before})
        [row] = fit(trained, train, train, Run(seed=0, micro_batches=1 + seed % 3))
        step = (before - trained.ctx.detach()) / 0.5
        assert (step - wanted).abs().max() <= 1e-3 * wanted.abs().max()
        assert row["loss"] == pytest.approx(row["ce"])
        assert row["kl"] == pytest.approx(4 * divergence.item(), rel=1e-3)
    assert conflicts == {True, False}


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_patches_under_the_zeros_change_nothing(make_backbone: Callable[[str], Any], kind: str) -> None:
    model = build("biomed_dpt", make_backbone(kind))
    pixels = pixels_of(2)
    other = pixels.clone()
    other[:, :, :8] = pixels_of(2, 1)[:, :, :8]  # the first two of four patches
    assert torch.equal(model.prepare(pixels), model.prepare(other))
    inserted = build("biomed_dpt", make_backbone(kind), visual="insert_frozen")
    assert not torch.equal(inserted.prepare(pixels), inserted.prepare(other))


@pytest.mark.parametrize("kind", KINDS)
def test_without_zeros_the_image_features_are_the_backbones(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = make_backbone(kind)
    model = build("biomed_dpt", backbone, visual="none")
    expected = backbone.model.encode_image(pixels_of(2))
    assert model.trained_count() == model.ctx.numel()
    torch.testing.assert_close(model.prepare(pixels_of(2)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_trainable_zeros_start_as_the_frozen_ones(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = make_backbone(kind)
    models = [build("biomed_dpt", backbone, visual=visual) for visual in ("insert_frozen", "insert_trainable")]
    batches = [Batch(model.prepare(pixels_of(3)), torch.arange(3)) for model in models]
    torch.testing.assert_close(models[0](batches[0]), models[1](batches[1]), atol=1e-5, rtol=0)
    assert set(models[1].trainable_parameters()) == {"ctx", "visual"}
    assert set(models[0].trainable_parameters()) == {"ctx"}


def test_more_zeros_than_patches_are_refused(make_backbone: Callable[[str], Any]) -> None:
    with pytest.raises(
        BadParams, match=r"biomed_dpt .*: n_visual: must be at most 3 \(4, .* less one that stays\), found 4"
    ):
        build("biomed_dpt", make_backbone("clip"), n_visual=4)


def test_many_images_without_gradients_go_in_parts(make_backbone: Callable[[str], Any]) -> None:
    model = build("cocoop", make_backbone("bert"))
    features = torch.randn(150, 12, generator=torch.Generator().manual_seed(0))
    batch = Batch(features, torch.zeros(150).long())
    with torch.no_grad():
        parts = model(batch)
    torch.testing.assert_close(parts, model(batch), atol=1e-5, rtol=0)


def test_the_meta_net_starts_as_torchs_layers_do_and_depends_on_the_seed(make_backbone: Callable[[str], Any]) -> None:
    first, again, other = (build("cocoop", make_backbone("bert"), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.meta_net.linear2.weight, again.meta_net.linear2.weight)
    assert not torch.equal(first.meta_net.linear2.weight, other.meta_net.linear2.weight)
    assert 0 < first.meta_net.linear1.weight.abs().max().item() <= 12**-0.5
    assert set(first.trainable_parameters()) == {
        "ctx", "meta_net.linear1.weight", "meta_net.linear1.bias", "meta_net.linear2.weight", "meta_net.linear2.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("position", "n_ctx", "sentence"),
    [
        ("end", 3, "x y z large cell in it ."),
        ("front", 3, "large cell x y z in it ."),
        ("middle", 3, "x large cell y z in it ."),
        ("middle_refbug", 3, "x large y z cell in it ."),
        ("middle", 2, "x large cell y z in it ."),
        ("middle_refbug", 2, "x z y large cell in it ."),
        ("front", 1, "large cell x y z in it ."),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_words_behind_the_name_and_frozen_words_of_the_phrase_keep_their_places(
    make_backbone: Callable[[str], Any], *, kind: str, position: str, n_ctx: int, sentence: str
) -> None:
    backbone = make_backbone(kind)
    model = build(
        "biomed_dpt",
        backbone,
        ("large cell", "small cell", "no cell"),
        template="x y z {} in it .",
        n_ctx=n_ctx,
        class_position=position,
    )
    expected = backbone.tokenize([sentence])[0, : model.prompts.ids.shape[1]]
    assert model.prompts.ids[0].tolist() == expected.tolist()
    torch.testing.assert_close(model.prompts.fill(model.ctx)[0], backbone.text.embed(expected[None])[0])


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("kgcoop", {"template": "no place"}, r"methods\.kgcoop\.template: must hold \{\} once"),
        ("biomed_dpt", {"n_ctx": 5}, r"methods\.biomed_dpt\.n_ctx: must be at most 4"),
        ("biomed_dpt", {"visual": "zeros"}, r"methods\.biomed_dpt\.visual: "),
        ("biomedcoop", {"tau": 0.0}, r"methods\.biomedcoop\.tau: "),
        ("prograd", {"strength": -1.0}, r"methods\.prograd\.strength: "),
    ],
)
def test_a_wrong_knob_is_named(
    make_backbone: Callable[[str], Any], name: str, knobs: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadParams, match=message):
        build(name, make_backbone("clip"), **knobs)
