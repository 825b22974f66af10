"""Methods against numbers computed with the published code: every golden case whose method exists here."""

import json
import os
import re
from pathlib import Path
from typing import Any

import golden_cilmp  # noqa: F401 - registers its builder
import golden_text  # noqa: F401 - registers its builders
import golden_visual  # noqa: F401 - registers its builders
import pytest
import torch
from golden import BUILDERS, Case

from clinprompt.methods import names
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

GOLDEN = Path(os.environ.get("CLINPROMPT_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def cases() -> list[Any]:
    known = {name.replace("_", ""): name for name in names()}
    found = []
    for path in sorted(GOLDEN.glob("*/case.json")):
        record = json.loads(path.read_text())
        key = re.sub(r"[^a-z0-9]", "", record.get("method_key", record["method"]).lower())
        if key in known:
            found.append(pytest.param(path.parent, known[key], id=path.parent.name))
    reason = f"no golden cases at {GOLDEN}; set CLINPROMPT_GOLDEN to their folder"
    return found or [pytest.param(None, None, marks=pytest.mark.skip(reason=reason))]


@pytest.mark.parametrize(("folder", "name"), cases())
def test_the_method_gives_the_published_codes_numbers(folder: Path, name: str) -> None:
    case = Case(folder)
    plain = case.model.encode_image(case.inputs["images"])
    case.within("plain_features", plain, case.expected["plain_image_features"])

    model = BUILDERS[name](case)
    assert set(model.trainable_parameters()) == set(case.params)
    model.load_state_dict(case.params, strict=False)
    batch = case.examples(model).batch(slice(None))
    logits = model(batch)
    loss, parts = model.loss(batch, logits)
    loss.backward()
    if hasattr(model, "features"):
        images, texts = model.features(batch)
        case.within("unit_features_abs", images, case.expected["image_features"])
        case.within("unit_features_abs", texts, case.expected["text_features"])
    if "image_features_abs" in case.record["tolerances"]:
        case.within("image_features_abs", model.image_features(batch), case.expected["image_features"])
    case.within("logits_abs", logits, case.expected["logits"])
    case.within("loss_abs", loss, case.expected["loss_total"])
    for part, value in parts.items():
        case.within("loss_abs", value, case.expected[f"loss_{part}"])
    for key, parameter in model.trainable_parameters().items():
        case.within("gradients", parameter.grad, case.expected[f"grad.{key}"])
    if "gate_zero_image_features" in case.expected:
        gates = {key: torch.zeros_like(t) for key, t in case.params.items() if key.endswith(".gate")}
        model.load_state_dict(gates, strict=False)
        case.within("image_features_abs", model.image_features(batch), case.expected["gate_zero_image_features"])


@pytest.mark.parametrize(("folder", "name"), cases())
def test_training_gives_the_published_codes_parameters(folder: Path, name: str) -> None:
    case = Case(folder)
    model = BUILDERS[name](case)
    model.load_state_dict(case.params, strict=False)
    examples = case.examples(model)
    curves = fit(model, examples, examples, Run(seed=0))
    check = case.record["optimiser_check"]
    steps = f"{check['name'].lower()}{check['steps']}"
    losses = case.expected.get(f"{steps}_losses")
    if losses is not None:
        case.within("loss_abs", torch.tensor([row["loss"] for row in curves]), losses)
    after = next(key for key in case.record["tolerances"] if key.startswith("after_"))
    for key, parameter in model.trainable_parameters().items():
        case.within(after, parameter, case.expected[f"{steps}.{key}"], case.expected[f"grad.{key}"])
    if f"{steps}_logits" in case.expected:
        case.within("logits_abs", model(examples.batch(slice(None))), case.expected[f"{steps}_logits"])


def clipped(case: Any) -> bool:
    folder = case.values[0]
    return folder is None or "_clipped." in (folder / "case.json").read_text()


@pytest.mark.parametrize(("folder", "name"), [case for case in cases() if clipped(case)])
def test_a_step_with_a_clipped_gradient_gives_the_published_codes_parameters(folder: Path, name: str) -> None:
    case = Case(folder)
    check = case.record["optimiser_check"]
    norms = re.findall(r"clipped to ([\d.]+)", " ".join(check.get("variants", [])))
    steps = f"{check['name'].lower()}{check['steps']}_clipped"
    for norm in norms:
        model = BUILDERS[name](case)
        model.load_state_dict(case.params, strict=False)
        model.config = model.config.model_copy(update={"clip_norm": float(norm)})
        examples = case.examples(model)
        fit(model, examples, examples, Run(seed=0))
        for key, parameter in model.trainable_parameters().items():
            gradient = case.expected[f"grad.{key}"] * float(norm) / case.expected["grad_norm"]
            case.within("after_adamw", parameter, case.expected[f"{steps}.{key}"], gradient)
