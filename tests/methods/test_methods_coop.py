"""CoOp against a reference written with loops: prompt by prompt, word by word, on whole contexts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("glioma", "large cell lung carcinoma", "no tumour", "pituitary adenoma")
CONFIG: dict[str, Any] = {
    "n_ctx": 4, "context_init": "a photo of a", "class_specific": False, "class_position": "end",
    "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 1, "warmup_learning_rate": 1e-5,
    "batch_size": 8, "epochs": 6,
}  # fmt: skip


def coop(backbone: Any, names: tuple[str, ...] = NAMES, seed: int = 1, **knobs: Any) -> Any:
    return method("coop")(Task(backbone, names, seed), check_config("coop", CONFIG | knobs))


def reference_text_feature(backbone: Any, name: str, ctx: torch.Tensor, position: str) -> torch.Tensor:
    """The feature of one class's prompt, built from single tokens and run on the whole context length."""
    start, *words, end = [int(i) for i in backbone.tokenize([name])[0] if i > 0]
    stop = int(backbone.tokenize(["."])[0, 1])
    vectors = list(ctx)
    half = len(vectors) // 2
    middle = {"front": [*words, *vectors], "middle": [*vectors[:half], *words, *vectors[half:]]}
    prompt = [start, *middle.get(position, [*vectors, *words]), stop, end]
    context = backbone.tokenize(["."]).shape[1]
    table = backbone.model.get_parameter(
        "token_embedding.weight"
        if hasattr(backbone.model, "token_embedding")
        else "text.transformer.embeddings.word_embeddings.weight"
    )
    padded = [*prompt, *[0] * (context - len(prompt))]
    x = torch.stack([table[item] if isinstance(item, int) else item for item in padded])[None]
    if hasattr(backbone.model, "token_embedding"):
        x = x + backbone.model.positional_embedding
        for block in backbone.model.transformer.resblocks:
            x = block(x, attn_mask=backbone.model.attn_mask)
        feature = backbone.model.ln_final(x)[0, len(prompt) - 1] @ backbone.model.text_projection
    else:
        mask = torch.tensor([[1] * len(prompt) + [0] * (context - len(prompt))])
        states = backbone.model.text.transformer(inputs_embeds=x, attention_mask=mask).last_hidden_state
        means = type(backbone.model.text.pooler).__name__ == "MeanPooler"
        feature = backbone.model.text.proj(states[0, : len(prompt)].mean(0) if means else states[0, 0])
    return feature / feature.norm()


def reference_loss(
    backbone: Any, names: tuple[str, ...], ctx: torch.Tensor, position: str, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    own = ctx if ctx.dim() == 3 else [ctx] * len(names)
    text = [reference_text_feature(backbone, name, own[c], position) for c, name in enumerate(names)]
    logits, losses = [], []
    for feature, label in zip(batch.inputs, batch.labels.tolist(), strict=True):
        row = torch.stack([backbone.logit_scale * (feature / feature.norm()) @ t for t in text])
        losses.append(row.logsumexp(0) - row[label])
        logits.append(row)
    return torch.stack(logits), torch.stack(losses).mean()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["clip", "bert", "mean"]),
    lengths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    n_ctx=st.integers(1, 6),
    position=st.sampled_from(["front", "middle", "end"]),
    class_specific=st.booleans(),
    phrase=st.booleans(),
    seed=st.integers(0, 99),
)
def test_logits_loss_and_gradient_equal_the_loop_written_ones(
    make_backbone: Callable[[str], Any],
    *,
    kind: str,
    lengths: list[int],
    n_ctx: int,
    position: str,
    class_specific: bool,
    phrase: bool,
    seed: int,
) -> None:
    backbone = make_backbone(kind)
    rng = np.random.default_rng(seed)
    names = tuple(" ".join([*(f"w{rng.integers(20)}" for _ in range(n - 1)), f"v{i}"]) for i, n in enumerate(lengths))
    init = " ".join(f"c{i}" for i in range(n_ctx)) if phrase else None
    model = coop(
        backbone, names, n_ctx=n_ctx, context_init=init, class_position=position, class_specific=class_specific
    )
    with torch.no_grad():
        model.ctx += 0.3 * torch.from_numpy(rng.normal(size=tuple(model.ctx.shape))).float()
    features = torch.from_numpy(rng.normal(size=(3, backbone.embed_dim))).float()
    batch = Batch(features, torch.from_numpy(rng.integers(0, len(names), 3)))

    logits = model(batch)
    loss, parts = model.loss(batch, logits)
    (gradient,) = torch.autograd.grad(loss, model.ctx)
    expected_logits, expected_loss = reference_loss(backbone, names, model.ctx, position, batch)
    (expected_gradient,) = torch.autograd.grad(expected_loss, model.ctx)

    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(loss, expected_loss, atol=1e-4, rtol=1e-5)
    assert set(parts) == {"ce"}
    assert (gradient - expected_gradient).abs().max() <= 1e-4 * expected_gradient.abs().max() + 1e-6


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_an_untrained_phrase_context_is_the_plain_template(make_backbone: Callable[[str], Any], kind: str) -> None:
    backbone = make_backbone(kind)
    ids = backbone.tokenize([f"a photo of a {name}." for name in NAMES])
    plain = F.normalize(backbone.model.encode_text(ids), dim=-1)
    for class_specific in (False, True):
        model = coop(backbone, class_specific=class_specific)
        torch.testing.assert_close(model.text_features(), plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("position", "sentence"), [("front", "glioma x y z ."), ("middle", "x glioma y z ."), ("end", "x y z glioma .")]
)
def test_the_class_name_stands_where_it_should(
    make_backbone: Callable[[str], Any], position: str, sentence: str
) -> None:
    backbone = make_backbone("clip")
    model = coop(backbone, ("glioma", "cyst"), n_ctx=3, context_init="x y z", class_position=position)
    expected = backbone.tokenize([sentence])[0, : model.prompts.ids.shape[1]]
    assert model.prompts.ids[0].tolist() == expected.tolist()
    torch.testing.assert_close(model.prompts.fill(model.ctx)[0], backbone.text.embed(expected[None])[0])


def test_shapes_and_names_of_what_is_trained(make_backbone: Callable[[str], Any]) -> None:
    shared = coop(make_backbone("clip"), context_init=None, n_ctx=5)
    own = coop(make_backbone("clip"), context_init=None, n_ctx=5, class_specific=True)
    assert {n: tuple(p.shape) for n, p in shared.trainable_parameters().items()} == {"ctx": (5, 16)}
    assert {n: tuple(p.shape) for n, p in own.trainable_parameters().items()} == {"ctx": (4, 5, 16)}


def test_a_random_context_depends_on_the_seed_alone_and_has_the_papers_deviation(
    make_backbone: Callable[[str], Any],
) -> None:
    def drawn(seed: int) -> torch.Tensor:
        return coop(make_backbone("clip"), seed=seed, context_init=None, n_ctx=15, class_specific=True).ctx.detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert drawn(1).std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("knobs", "names", "message"),
    [
        ({"n_ctx": 5}, NAMES, r"methods\.coop\.n_ctx: must be at most 4, .* found 5"),
        ({}, ("a", " ".join("abcdefghijklmnopqrstuvwxyz")), r"class 'a b c .* does not fit the 24 tokens"),
        ({"context_init": None, "n_ctx": 40}, NAMES, r"n_ctx: must be at most 19 \(24, .* found 40"),
        ({"context_init": None, "n_ctx": 19}, NAMES, r"does not fit the 24 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_built_is_explained(
    make_backbone: Callable[[str], Any], knobs: dict[str, Any], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadParams, match=message):
        coop(make_backbone("clip"), names, **knobs)


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_training_learns_repeats_itself_and_leaves_the_backbone_alone(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Any], kind: str
) -> None:
    backbone = make_backbone(kind)
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    train, val = make_examples(64, 4), make_examples(40, 4, seed=1)
    runs = []
    for _ in range(2):
        model = coop(backbone, class_specific=True, learning_rate=0.1, epochs=10)
        runs.append((fit(model, train, val, Run(seed=3)), model.ctx.detach().clone()))
    curves = runs[0][0]
    assert curves[-1]["loss"] < 0.7 * curves[0]["loss"]
    assert list(curves[0]) == ["epoch", "learning_rate", "loss", "train_accuracy", "val_accuracy"]
    assert curves == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert all(torch.equal(p, before[name]) for name, p in backbone.model.state_dict().items())
