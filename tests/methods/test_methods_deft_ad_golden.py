"""DEFT-VLM-AD against the numbers of its golden cases."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_volumes import METHOD, backbone_of, cases_of, record_of
from safetensors.torch import load_file
from torch import Tensor

from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples, ReportIds
from clinprompt.prompting.contrastive import symmetric_contrast
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

SWITCHES = ("text_prompts", "clip_image", "logit_scale", "mmse_head", "mmse_token", "mmse_divisor")
NUMBER = r"\d[\d.]*(?:e-?\d+)?"


class Case:
    """A golden case: its record and tensors, the backbone with its weights, and the method at the recorded state."""

    def __init__(self, folder: Path) -> None:
        self.record, self.model = record_of(folder), backbone_of(folder).requires_grad_(False)
        self.params, self.inputs, self.expected = (
            load_file(folder / f"{name}.safetensors") for name in ("params", "inputs", "expected")
        )
        self.backbone: Any = SimpleNamespace(
            name=self.record["case"], model=self.model, text=TextTower(self.model), vision=VisionTower(self.model),
            tokenize=self.tokenize, embed_dim=self.record["embed_dim"], logit_scale=1.0, device=torch.device("cpu"),
            unknown_id=None,
        )  # fmt: skip

    def tokenize(self, texts: list[str]) -> Tensor:
        """The recorded ids of the classes' texts, padded; of the words before a class's name, a row that is shorter."""
        ids = F.pad(self.inputs["class_token_ids"], (0, 8))
        if len(texts) == len(ids):
            assert texts == self.record["class_texts"]
            return ids
        row = ids[:1].clone()
        row[:, -10:] = 0
        return row

    def build(self, steps: int = 1) -> Any:
        """The method with the record's switches, its optimiser set up for so many of the recorded steps."""
        record, check = self.record, self.record["optimiser_check"]
        knobs = {
            "n_prompts": record["n_visual_prompts"], "depth": record["visual_depth"],
            "n_text_prompts": record["n_text_prompts"], "heads": record["cross_attention_heads"],
            "optimizer": check["name"].lower(), "learning_rate": check["lr"], "weight_decay": check["weight_decay"],
            "epsilon": check["eps"], "warmup_epochs": steps, "warmup_learning_rate": check["lr"], "epochs": steps,
            "batch_size": record["batch_size"],
        }  # fmt: skip
        knobs |= {name: record["settings"][name] for name in SWITCHES}
        knobs["mmse_divisor"] = float(knobs["mmse_divisor"])
        model: Any = method("deft_ad")(
            Task(self.backbone, tuple(record["class_names"]), 0), check_config("deft_ad", knobs)
        )
        assert set(model.trainable_parameters()) == set(self.params)
        model.load_state(self.params | {"scored": torch.ones(())})
        return model

    def examples(self, model: Any) -> Examples:
        """The volumes with their reports and MMSE."""
        tokens = model.prepare(self.inputs["images"])
        reports = ReportIds(self.inputs["token_ids"][:, None])
        return Examples(tokens, self.inputs["labels"], reports=reports, scores=self.inputs["mmse"])

    def near(self, tolerance: str, found: Tensor, name: str) -> None:
        """Assert that a tensor is the expected one of that name, within a tolerance of the record: a number, or
        "… <= R * max|b| + A" (or "A + R * |b|")."""
        bound, expected, found = self.record["tolerances"][tolerance], self.expected[name], found.detach()
        assert found.shape == expected.shape, name
        if isinstance(bound, str):
            terms = dict.fromkeys(("relative", "absolute"), 0.0)
            for term in re.sub(r".*?<=", "", bound).replace("per tensor", "").split("+"):
                number = re.match(rf"\s*({NUMBER})", term)
                assert number, bound
                terms["relative" if "|b|" in term else "absolute"] = float(number[1])
            bound = terms["relative"] * float(expected.abs().max()) + terms["absolute"]
        assert float((found - expected).abs().max()) <= bound, name

    def stepped(self, steps: int, name: str, found: Tensor) -> None:
        """The same of a parameter after some steps; where the gradient is next to nothing, rounding decides."""
        bound = self.record["tolerances"][f"after_adamw{steps}"]
        numbers = re.match(rf"max\|a-b\| <= ({NUMBER}) where \|grad\| > ({NUMBER})", bound)
        assert numbers, bound
        loose = 2 * steps * self.record["optimiser_check"]["lr"]
        clear = self.expected[f"grad.{name}"].abs() > float(numbers[2])
        bounds = torch.where(clear, float(numbers[1]), loose)
        assert bool(((found - self.expected[f"adamw{steps}.{name}"]).abs() <= bounds).all()), name


@pytest.fixture(params=cases_of(METHOD))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_the_backbone_s_own_features(case: Case) -> None:
    images, texts = (case.inputs[name] for name in ("images", "token_ids"))
    case.near(
        "unit_features_and_tokens_abs", F.normalize(case.model.encode_image(images), dim=-1), "plain_image_features"
    )
    case.near("unit_features_and_tokens_abs", F.normalize(case.model.encode_text(texts), dim=-1), "plain_text_features")


def test_tokens_features_scores_losses_and_gradients(case: Case) -> None:
    model = case.build()
    batch = case.examples(model).batch(slice(None))
    unit, logit = "unit_features_and_tokens_abs", "logits_abs"
    whole = model.image_tokens(batch, whole=True)
    texts = model.text_tokens(batch.reports)
    case.near(unit, whole.unit, "image_tokens")
    case.near(unit, texts.tokens, "text_tokens")
    logits = model(batch)
    case.near(logit, logits, "class_logits")
    contrast = model.contrast(batch)
    case.near(unit, contrast.images, "image_features")
    case.near(unit, contrast.texts, "text_features")
    case.near(logit, contrast.scores, "logits")
    case.near("mmse_pred", model.mmse(whole), "mmse_pred")

    loss, parts = model.loss(batch, logits)
    case.near("losses", parts["clip"], "loss_clip")
    case.near("losses", parts["mmse"] / model.config.mmse_weight, "loss_mmse")
    case.near("losses", loss, "loss_total")
    loss.backward()
    for name, parameter in model.trainable_parameters().items():
        case.near("gradients", parameter.grad, f"grad.{name}")


def test_what_is_predicted_and_the_loss_before_any_cross_attention(case: Case) -> None:
    model = case.build().eval()
    batch = case.examples(model).batch(slice(None))
    with torch.no_grad():
        logits, points = model.predict(batch)
        case.near("logits_abs", logits, "class_logits")
        case.near("unit_features_and_tokens_abs", model.class_texts(), "class_text_features")
        case.near("logits_abs", model.pairwise_logits(batch), "class_logits_pairwise")
        torch.testing.assert_close(points, (case.expected["mmse_pred"] * model.config.mmse_divisor).clamp(0, 30))
        assert torch.equal(points, model.estimate(batch))
        model.config = model.config.model_copy(update={"clip_image": "none"})
        scores = model.contrast(batch).scores
        case.near("logits_abs", scores, "logits_without_cross_attention")
        case.near("losses", symmetric_contrast(scores), "loss_clip_without_cross_attention")


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_of_the_optimiser(case: Case, steps: int) -> None:
    assert steps in case.record["optimiser_check"]["steps"]
    model = case.build(steps)
    examples = case.examples(model)
    curves = fit(model, examples, examples, Run(seed=0))
    for name, parameter in model.trainable_parameters().items():
        case.stepped(steps, name, parameter)
    if f"adamw{steps}_losses" in case.expected:
        case.near("adamw3_losses", torch.tensor([row["loss"] for row in curves]), f"adamw{steps}_losses")
        case.near("adamw3_logits_abs", model.contrast(examples.batch(slice(None))).scores, f"adamw{steps}_logits")
