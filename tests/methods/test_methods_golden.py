"""Methods against numbers computed with the published code: every golden case whose method exists here."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from clinprompt.backbones.text import TextTower
from clinprompt.methods import check_config, method, names
from clinprompt.methods.base import Task
from clinprompt.training.batches import Batch, Examples
from clinprompt.training.loop import Run

GOLDEN = Path(os.environ.get("CLINPROMPT_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


class Case:
    """A golden case: its record and tensors, and a backbone that gives its token ids for its prompts."""

    def __init__(self, folder: Path) -> None:
        self.record = json.loads((folder / "case.json").read_text())
        self.params, self.inputs, self.expected = (
            load_file(folder / f"{name}.safetensors") for name in ("params", "inputs", "expected")
        )
        config = json.loads((folder / "model_config.json").read_text().replace("{case_dir}", str(folder)))
        self.model = (open_clip.CustomTextCLIP if "hf_model_name" in config["text_cfg"] else open_clip.CLIP)(**config)
        self.model.load_state_dict(load_file(folder / "weights.safetensors"))
        self.model.eval().requires_grad_(False)
        self.backbone: Any = SimpleNamespace(
            name=self.record["case"], model=self.model, text=TextTower(self.model), tokenize=self.tokenize,
            logit_scale=float(self.model.logit_scale.exp()), embed_dim=config["embed_dim"], device=torch.device("cpu"),
        )  # fmt: skip

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """The recorded ids for the classes' prompts; for the phrase alone, a row with as many tokens as it has."""
        ids = self.inputs["token_ids"]
        if len(texts) == len(ids):
            return ids
        n_ctx, row = self.record["n_ctx"], ids[:1].clone()
        row[:, 1 + n_ctx], row[:, 2 + n_ctx :] = ids[0].tolist()[int((ids[0] > 0).sum()) - 1], 0
        return row

    def within(self, tolerance: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Assert |found - expected| within a tolerance of the record, a number or "max|a-b| <= R * max|b| + A"."""
        bound = self.record["tolerances"][tolerance]
        if isinstance(bound, str):
            number = r"\d[\d.]*(?:e-?\d+)?"
            relative, absolute = re.fullmatch(
                rf".*<= ({number}) \* max\|b\|(?: \+ ({number}))?(?: per tensor)?", bound
            ).groups()
            bound = float(relative) * expected.abs().max().item() + float(absolute or 0)
        assert (found - expected).abs().max().item() <= bound, tolerance


def build_coop(case: Case) -> Any:
    """CoOp as the case's record describes it; an epoch is one step, and all of them have the check's learning rate."""
    record, check = case.record, case.record["optimiser_check"]
    config = {
        "n_ctx": record["n_ctx"], "context_init": record["context_init_text"],
        "class_specific": record["class_specific_context"], "class_position": record["class_token_position"],
        "learning_rate": check["lr"], "momentum": check["momentum"], "weight_decay": check["weight_decay"],
        "warmup_epochs": check["steps"], "warmup_learning_rate": check["lr"],
        "batch_size": record["batch_size"], "epochs": check["steps"],
    }  # fmt: skip
    return method("coop")(Task(case.backbone, tuple(record["class_names"]), 0), check_config("coop", config))


BUILDERS: dict[str, Callable[[Case], Any]] = {"coop": build_coop}


def cases() -> list[Any]:
    known = {name.replace("_", ""): name for name in names() if name in BUILDERS}
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
    images = case.model.encode_image(case.inputs["images"])
    case.within("plain_features", images, case.expected["plain_image_features"])

    model = BUILDERS[name](case)
    assert set(model.trainable_parameters()) == set(case.params)
    model.load_state_dict(case.params)
    batch = Batch(images, case.inputs["labels"])
    logits = model(batch)
    loss, parts = model.loss(batch, logits)
    loss.backward()
    case.within("unit_features_abs", F.normalize(images, dim=-1), case.expected["image_features"])
    case.within("unit_features_abs", model.text_features(), case.expected["text_features"])
    case.within("logits_abs", logits, case.expected["logits"])
    case.within("loss_abs", loss, case.expected["loss_total"])
    for part, value in parts.items():
        case.within("loss_abs", value, case.expected[f"loss_{part}"])
    for key, parameter in model.trainable_parameters().items():
        case.within("gradients", parameter.grad, case.expected[f"grad.{key}"])


@pytest.mark.parametrize(("folder", "name"), cases())
def test_training_gives_the_published_codes_parameters(folder: Path, name: str) -> None:
    case = Case(folder)
    model = BUILDERS[name](case)
    model.load_state_dict(case.params)
    examples = Examples(case.model.encode_image(case.inputs["images"]), case.inputs["labels"])
    curves = model.fit(examples, examples, Run(seed=0))
    case.within("loss_abs", torch.tensor([row["loss"] for row in curves]), case.expected["sgd3_losses"])
    for key, parameter in model.trainable_parameters().items():
        case.within("after_sgd", parameter, case.expected[f"sgd3.{key}"])
    case.within("logits_abs", model(examples.batch(slice(None))), case.expected["sgd3_logits"])
