"""The register of methods, their knobs, and what each saves."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clinprompt.errors import BadParams
from clinprompt.methods import check_config, method, names, register
from clinprompt.prompting.base import Head, Task
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("glioma", "no tumour", "pituitary adenoma")


def test_the_methods_are_the_files_that_register_one() -> None:
    assert {"zero_shot", "linear_probe", "coop"} <= set(names())
    assert all(method(name).name == name for name in names())


def test_listing_the_methods_and_reading_a_model_imports_no_torch() -> None:
    code = "import sys, clinprompt.methods as m, clinprompt.tuned.artifact; m.names(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_method_must_bear_its_files_name() -> None:
    with pytest.raises(ValueError, match=r"must be in clinprompt\.methods\.other"):
        register("other")(method("coop"))


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'coop' is registered twice, by CoOp and CoOp"):
        register("coop")(method("coop"))


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(BadParams, match=r"there is no method 'copo'; did you mean 'coop'\? known: .*coop"):
        method("copo")


@pytest.mark.parametrize("name", names())
def test_a_method_needs_no_knobs(name: str) -> None:
    assert check_config(name, {}) == check_config(name, check_config(name, {}).model_dump())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("coop", {"n_ctxt": 4}, r"methods\.coop\.n_ctxt: no such key \(did you mean 'n_ctx'\?\)"),
        ("coop", {"n_ctx": 0}, r"methods\.coop\.n_ctx: "),
        ("coop", {"learning_rate": "fast"}, r"methods\.coop\.learning_rate: .*found 'fast'"),
        ("coop", {"class_position": "last"}, r"methods\.coop\.class_position: "),
        ("zero_shot", {"template": "a photo"}, r"methods\.zero_shot\.template: must hold \{\} once"),
        ("linear_probe", {"max_iterations": 1.5}, r"methods\.linear_probe\.max_iterations: "),
    ],
)
def test_a_wrong_knob_is_named_by_its_path(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParams, match=r"params\.yaml: " + message):
        check_config(name, change)


@pytest.mark.parametrize("kind", ["clip", "bert", "mean"])
def test_the_zero_shot_head_is_the_classes_sentences(
    make_backbone: Callable[[str], Any], make_examples: Callable[..., Any], kind: str
) -> None:
    backbone = make_backbone(kind)
    config = check_config("zero_shot", {"template": "a scan of {} ."})
    model = method("zero_shot")(Task(backbone, NAMES, 0), config)
    text = F.normalize(backbone.model.encode_text(backbone.tokenize([f"a scan of {n} ." for n in NAMES])), dim=-1)
    examples = make_examples(9, 3)
    expected = backbone.logit_scale * F.normalize(examples.inputs, dim=-1) @ text.T
    curves = fit(model, examples, examples, Run(0))
    torch.testing.assert_close(model(examples.batch(slice(None))), expected, atol=1e-4, rtol=0)
    assert model.trainable_parameters() == {}
    hits = (expected.argmax(-1) == examples.labels).float().mean().item()
    assert curves == [{"epoch": 0, "train_accuracy": pytest.approx(hits), "val_accuracy": pytest.approx(hits)}]
    head = model.export_head()
    assert set(head) == {"weight", "scale"}
    torch.testing.assert_close(head["weight"], text, atol=1e-5, rtol=0)
    assert head["scale"].item() == pytest.approx(backbone.logit_scale)


def test_a_heads_logits_are_the_written_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, features = (torch.randn(*s, generator=generator) for s in ((3, 5), (3,), (2, 5)))
    found = Head(weight, 7.0, bias).logits(features)
    for b in range(2):
        for c in range(3):
            cosine = sum(features[b, k] * weight[c, k] for k in range(5)) / features[b].norm()
            assert found[b, c].item() == pytest.approx((7 * cosine + bias[c]).item(), abs=1e-5)
