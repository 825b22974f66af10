"""Several runs trained as one stack, each against itself trained alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clinprompt.errors import BadParams, NotTrained
from clinprompt.experiments.stacked import Member, descend_stacked
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

DESCENT: dict[str, Any] = {
    "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.0005, "warmup_epochs": 1, "warmup_learning_rate": 1e-4,
    "batch_size": 8, "epochs": 5, "n_ctx": 4, "class_position": "end", "context_init": "a photo of a",
}  # fmt: skip
TEACHER = {"template": "a scan of {} .", "temperature": 2.0, "strength": 1.0}
THREE = ("glioma", "large cell carcinoma", "no tumour")
TWO = ("a very long name of something", "nothing")


def member(
    name: str, backbone: Any, data: Examples, names: tuple[str, ...] = THREE, seed: int = 0, **knobs: Any
) -> Member:
    sentences = tuple((f"{n} dark", f"{n} round and bright", f"{n} with a rim") for n in names)
    task = Task(backbone, names, seed, Knowledge(descriptions=sentences))
    return Member(method(name)(task, check_config(name, DESCENT | knobs)), data, data, seed)  # type: ignore[arg-type]


def stacks(backbone: Any, data: Callable[..., Examples]) -> dict[str, Callable[[], list[Member]]]:
    """Members anew at each call, by what differs among them."""
    three, two, weights = data(24, 3), data(40, 2), {"tau": 1.5, "kdsp_weight": 0.5}
    return {
        "seeds": lambda: [member("coop", backbone, three, seed=s, context_init=None) for s in range(3)],
        "weights": lambda: [member("biomedcoop", backbone, three, sccm_weight=w, **weights) for w in (0.0, 1.0, 9.0)],
        "datasets, knobs and methods": lambda: [
            member("coop", backbone, three, class_specific=True, clip_norm=0.1),
            member("coop", backbone, two, TWO, seed=4, epochs=3, learning_rate=0.1, optimizer="adamw", n_ctx=2),
            member("biomedcoop", backbone, two, TWO, seed=2, sccm_weight=1.0, class_position="front", **weights),
        ],
        "gradient rules": lambda: [member("prograd", backbone, three, seed=s, **TEACHER) for s in range(3)],
    }


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
@pytest.mark.parametrize("what", ["seeds", "weights", "datasets, knobs and methods", "gradient rules"])
def test_each_run_of_a_stack_is_what_it_is_alone(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Examples], kind: str, what: str
) -> None:
    build = stacks(make_backbone(kind), make_examples)[what]
    together, again, alone = build(), build(), build()
    curves = descend_stacked(together)
    assert descend_stacked(again) == curves
    for index, (one, copy, single) in enumerate(zip(together, again, alone, strict=True)):
        expected = fit(single.method, single.train, single.val, Run(seed=single.seed))
        torch.testing.assert_close(one.method.ctx, single.method.ctx, atol=2e-5, rtol=1e-4)
        assert torch.equal(one.method.ctx, copy.method.ctx)
        assert [list(row) for row in curves[index]] == [list(row) for row in expected]
        for row, wanted in zip(curves[index], expected, strict=True):
            np.testing.assert_allclose(list(row.values()), list(wanted.values()), atol=1e-4, rtol=1e-4)


def test_a_stack_in_bfloat16_is_close_to_one_in_float32(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Examples]
) -> None:
    build = stacks(make_backbone("mean"), make_examples)["seeds"]
    exact, mixed = build(), build()
    expected, found = descend_stacked(exact), descend_stacked(mixed, mixed=True)
    for one, other, curve, wanted in zip(mixed, exact, found, expected, strict=True):
        assert not torch.equal(one.method.ctx, other.method.ctx)
        assert one.method.ctx.dtype == torch.float32
        np.testing.assert_allclose([row["loss"] for row in curve], [row["loss"] for row in wanted], rtol=0.05)


def test_what_cannot_be_stacked_is_said(make_backbone: Callable[[str], Any], make_examples: Any) -> None:
    backbone, data = make_backbone("bert"), make_examples(24, 3)
    with pytest.raises(BadParams, match="cocoop can't be trained stacked"):
        descend_stacked([member("cocoop", backbone, data)])
    with pytest.raises(BadParams, match="only with its own kind"):
        descend_stacked([member("coop", backbone, data), member("prograd", backbone, data, **TEACHER)])
    with pytest.raises(NotTrained, match="loss is not finite"):
        descend_stacked([member("coop", backbone, data, learning_rate=1e30, warmup_epochs=0)])
