"""Golden cases: their tensors, a backbone that gives their token ids, and how each method is built from a record.

A builder takes a `Case` and returns the method as the record describes it, its optimiser set up for `fit` to make the
recorded steps: an epoch is one step, and all of them have the check's learning rate.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file

from clinprompt.backbones.text import TextTower
from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Knowledge, Task
from clinprompt.prompting.batches import Examples

BUILDERS: dict[str, Callable[["Case"], Any]] = {}

Builder = Callable[["Case"], Any]


def builds(name: str) -> Callable[[Builder], Builder]:
    """Make the decorated function the builder of the method `name`."""

    def decorate(function: Builder) -> Builder:
        BUILDERS[name] = function
        return function

    return decorate


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
            name=self.record["case"], model=self.model, tokenize=self.tokenize,
            text=TextTower(self.model), vision=VisionTower(self.model),
            logit_scale=float(self.model.logit_scale.exp()), embed_dim=config["embed_dim"], device=torch.device("cpu"),
            unknown_id=None,
        )  # fmt: skip

        sentences = [text for some in self.record.get("teacher_sentences", []) for text in some]
        if sentences:
            rows = self.inputs["teacher_token_ids"].flatten(0, 1)
            self.sentences = dict(zip(sentences, rows, strict=True))

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """The recorded ids of teacher sentences and of the classes' prompts; for the phrase alone, a row with as many
        tokens as it has."""
        if all(text in getattr(self, "sentences", {}) for text in texts):
            return torch.stack([self.sentences[text] for text in texts])
        ids, n_ctx = self.inputs["token_ids"], self.record.get("n_ctx", self.record.get("n_ctx_text"))
        if len(texts) == len(ids) and self.record.get("context_init_text"):
            return ids
        if len(texts) == len(ids):  # without a phrase the ids hold placeholders, which the method puts in by itself
            return torch.cat([ids[:, :1], ids[:, 1 + n_ctx :], ids.new_zeros(len(ids), n_ctx)], dim=1)
        row = ids[:1].clone()
        row[:, 1 + n_ctx], row[:, 2 + n_ctx :] = ids[0].tolist()[int((ids[0] > 0).sum()) - 1], 0
        return row

    def within(
        self, tolerance: str, found: torch.Tensor, expected: torch.Tensor, gradient: torch.Tensor | None = None
    ) -> None:
        """Assert |found - expected| within a tolerance of the record: a number, "max|a-b| <= R * max|b| + A", or
        "max|a-b| <= A where |grad| > G; …", which leaves the other elements twice the learning rate."""
        bound = self.record["tolerances"][tolerance]
        number = r"\d[\d.]*(?:e-?\d+)?"
        if isinstance(bound, str) and (parts := re.match(rf".*<= ({number}) where \|grad\| > ({number});", bound)):
            assert gradient is not None
            loose = 2 * self.record["optimiser_check"]["lr"]
            bounds = torch.where(gradient.abs() > float(parts[2]), float(parts[1]), loose)
            assert bool(((found - expected).abs() <= bounds).all()), tolerance
            return
        if isinstance(bound, str):
            relative, absolute = re.fullmatch(
                rf".*<= ({number}) \* max\|b\|(?: \+ ({number}))?(?: per tensor)?", bound
            ).groups()
            bound = float(relative) * expected.abs().max().item() + float(absolute or 0)
        assert (found - expected).abs().max().item() <= bound, tolerance

    def examples(self, model: Any) -> Examples:
        """The images at the level that the method reads, with their labels."""
        images = self.inputs["images"]
        with torch.no_grad():
            pixels = model.needed.images == "pixels"
            return Examples(model.prepare(images) if pixels else self.model.encode_image(images), self.inputs["labels"])

    def build(self, name: str, knowledge: Knowledge | None = None, **knobs: Any) -> Any:
        """The method `name` with its own knobs, and those of the recorded optimiser."""
        check = self.record["optimiser_check"]
        descent = {
            "optimizer": check["name"].lower(), "learning_rate": check["lr"], "weight_decay": check["weight_decay"],
            "momentum": check.get("momentum", 0.0), "clip_norm": None, "warmup_epochs": check["steps"],
            "warmup_learning_rate": check["lr"], "batch_size": self.record["batch_size"], "epochs": check["steps"],
        }  # fmt: skip
        names = self.record.get("class_names") or [f"class {c}" for c in range(self.record["num_classes"])]
        task = Task(self.backbone, tuple(names), 0, knowledge)
        return method(name)(task, check_config(name, descent | knobs))

    def context(self) -> dict[str, Any]:
        """The knobs of the context that CoOp and its kin share."""
        record = self.record
        return {
            "n_ctx": record["n_ctx"], "context_init": record["context_init_text"] or None,
            "class_position": record["class_token_position"],
        }  # fmt: skip


@builds("coop")
def build_coop(case: Case) -> Any:
    """CoOp."""
    return case.build("coop", class_specific=case.record["class_specific_context"], **case.context())
