"""Methods against numbers computed with the published code: every golden case whose method exists here."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import golden_cilmp  # noqa: F401 - registers its builder
import golden_text  # noqa: F401 - registers its builders
import golden_visual  # noqa: F401 - registers its builders
import pytest
import torch
import torch.nn.functional as F
from golden import BUILDERS, Case
from safetensors.torch import load_file, save_file

from clinprompt.methods import names
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

GOLDEN = Path(os.environ.get("CLINPROMPT_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


# What is recorded of a case, and compared by one of the tests below; a name that is none of these fails.
COMPARED = re.compile(
    r"plain_(image|text)_features|(image|text)_features|logits|eval_logits|loss_\w+|grad_norm|gate_zero_image_features"
    r"|sdps_(scores|keep)|teacher_(mean|selected)_features|prompted_text_input_layer0"
    r"|grad\..+|(sgd|adamw)\d+(_clipped)?(\..+|_logits|_losses)"
)


def cases(golden: Path = GOLDEN, recording: str | None = None) -> list[Any]:
    """The cases of a folder with their methods; a case of a kind that is not known has its own name for a method.

    With `recording`, only those that hold a tensor of this name.
    """
    known = {name.replace("_", ""): name for name in names()}
    found = []
    for path in sorted(golden.glob("*/case.json")):
        record = json.loads(path.read_text())
        if recording is not None and recording not in record["tensors"]["expected.safetensors"]:
            continue
        told = record.get("method_key", record["method"])
        name = known.get(re.sub(r"[^a-z0-9]", "", told.lower()), told)
        found.append(pytest.param(path.parent, name, id=path.parent.name))
    reason = f"no golden cases at {golden}; set CLINPROMPT_GOLDEN to their folder"
    return found or [pytest.param(None, None, marks=pytest.mark.skip(reason=reason))]


@pytest.mark.parametrize(("folder", "name"), cases())
def test_the_method_and_all_that_is_recorded_of_it_are_known(folder: Path, name: str) -> None:
    assert name in BUILDERS, f"{folder.name} is a case of {name}, for which there is no builder here"
    unknown = [key for key in Case(folder).expected if not COMPARED.fullmatch(key)]
    assert not unknown, f"{folder.name} records what nothing here compares: {', '.join(unknown)}"


@pytest.mark.parametrize(("folder", "name"), cases())
def test_the_method_gives_the_published_codes_numbers(folder: Path, name: str) -> None:
    case = Case(folder)
    plain = case.model.encode_image(case.inputs["images"])
    case.within("plain_features", plain, case.expected["plain_image_features"])
    if "plain_text_features" in case.expected:
        texts = case.model.encode_text(case.inputs["token_ids"])
        case.within("plain_features", texts, case.expected["plain_text_features"])

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
    if "loss_kg_unweighted" in case.expected:
        case.within("loss_abs", parts["kg"] / case.record["kg_weight"], case.expected["loss_kg_unweighted"])
    if "grad_norm" in case.expected:
        gradients = torch.cat([p.grad.flatten() for p in model.trainable_parameters().values()])
        assert float(gradients.norm()) == pytest.approx(float(case.expected["grad_norm"]), rel=1e-4)
    if "eval_logits" in case.expected:
        case.within("logits_abs", model.eval()(batch), case.expected["eval_logits"])
    if "gate_zero_image_features" in case.expected:
        gates = {key: torch.zeros_like(t) for key, t in case.params.items() if key.endswith(".gate")}
        model.load_state_dict(gates, strict=False)
        case.within("image_features_abs", model.image_features(batch), case.expected["gate_zero_image_features"])


@pytest.mark.parametrize(("folder", "name"), cases(recording="teacher_mean_features"))
def test_the_teacher_is_the_published_codes(folder: Path, name: str) -> None:
    case = Case(folder)
    model = BUILDERS[name](case)
    case.within("unit_features_abs", model.teacher, case.expected["teacher_mean_features"])
    if "sdps_scores" in case.expected:
        images = F.normalize(case.examples(model).inputs, dim=-1)
        case.within("logits_abs", model.bank.scores(images, model.scale), case.expected["sdps_scores"])
        kept = model.bank.select(images, model.scale, model.config.tau)
        assert torch.equal(kept, case.expected["sdps_keep"].bool())
        case.within("unit_features_abs", model.bank.mean(kept), case.expected["teacher_selected_features"])


@pytest.mark.parametrize(("folder", "name"), cases(recording="prompted_text_input_layer0"))
def test_the_prompts_of_the_language_models_states_are_the_published_codes(folder: Path, name: str) -> None:
    case = Case(folder)
    model = BUILDERS[name](case)
    model.load_state_dict(case.params, strict=False)
    v = case.expected["image_features"][:1]
    parts = model.text_layers[0](model.rows, v)
    first, middle, last = (part.expand(1, len(model.rows.count), -1, -1)[0] for part in parts)
    start, _ = model.prompts.around()
    for c, recorded in enumerate(case.expected["prompted_text_input_layer0"][0]):
        between = middle[c][: int(model.rows.real[c].sum())]
        found = torch.cat([start[0], model.ctx, first[c], between, last[c]])
        case.within("gradients", found, recorded[: len(found)])


def test_a_case_of_a_kind_that_is_not_known_fails(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "case.json").write_text(json.dumps({"method": "Prompt-Of-Tomorrow"}))
    [param] = cases(tmp_path)
    with pytest.raises(AssertionError, match="new is a case of Prompt-Of-Tomorrow, for which there is no builder"):
        test_the_method_and_all_that_is_recorded_of_it_are_known(*param.values)


@pytest.mark.skipif(not (GOLDEN / "coop_c4_b4").is_dir(), reason=f"no golden cases at {GOLDEN}")
def test_a_case_without_a_phrase_whose_ids_hold_the_placeholders_passes(tmp_path: Path) -> None:
    folder = tmp_path / "coop_empty"
    shutil.copytree(GOLDEN / "coop_c4_b4", folder)
    record = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(record | {"context_init_text": ""}))
    inputs, expected = (load_file(folder / f"{name}.safetensors") for name in ("inputs", "expected"))
    n_ctx = record["n_ctx"]
    inputs["token_ids"][:, 1 : 1 + n_ctx] = inputs["token_ids"][0, 1 + n_ctx]  # the same placeholder everywhere
    expected["plain_text_features"] = Case(folder).model.encode_text(inputs["token_ids"])
    save_file(inputs, folder / "inputs.safetensors")
    save_file(expected, folder / "expected.safetensors")
    test_the_method_gives_the_published_codes_numbers(folder, "coop")
    test_training_gives_the_published_codes_parameters(folder, "coop")


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
