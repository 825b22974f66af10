"""What a method is fed: labelled images at the level that it reads, and what a language model says of the classes."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from clinprompt.backbones import Backbone
from clinprompt.data.card import Card
from clinprompt.data.pixels import Preprocessing
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.features.extract import Encode
from clinprompt.features.prepare import prepare
from clinprompt.features.store import FeatureStore
from clinprompt.methods.base import Knowledge, Needs, PromptMethod
from clinprompt.training.augmentation import Augmentation, CropFlip
from clinprompt.training.batches import Examples
from components.runner import Job

_AGAIN = "Run the stage describe again (dvc repro)"


@dataclass(frozen=True)
class Feeder:
    """Gives a method what it reads of images."""

    job: Job
    card: Card
    store: FeatureStore
    backbone: Backbone
    model: PromptMethod

    def examples(self, rows: pd.DataFrame, augmentation: Augmentation = "none") -> Examples:
        """The images of a manifest's rows: their cached features, or what the method makes of their pixels.

        Augmented pixels are kept as they are, and prepared batch by batch.
        """
        index = {label: number for number, label in enumerate(self.card.class_ids)}
        labels = rows["label"].map(index).to_numpy("int64")
        needs = type(self.model).needs(self.model.config)
        if needs.images == "features":
            return Examples.of(self.store.get(rows["id"].tolist()), labels, self.backbone.device)
        targets = torch.tensor(labels, device=self.backbone.device)
        if augmentation == "none":
            return Examples(self._pixels(rows, needs, self._prepare), targets)
        return CropFlip(self._pixels(rows, needs, lambda pixels: pixels), targets, self._prepare)

    def _prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.prepare(pixels.to(self.backbone.device))

    def _pixels(self, rows: pd.DataFrame, needs: Needs, encode: Encode) -> torch.Tensor:
        folder = self.job.inputs["images"]
        return prepare(
            encode,
            [(digest, folder / file) for digest, file in zip(rows["id"], rows["file"], strict=True)],
            preprocessing(self.backbone, needs),
            self.backbone.device,
            intensity=self.card.intensity,
            folder=self.job.final["model"].parent,
        )


def preprocessing(backbone: Backbone, needs: Needs) -> Preprocessing:
    """The backbone's, at the size that the method asks for."""
    return replace(backbone.preprocessing, size=needs.image_size or backbone.preprocessing.size)


def knowledge(job: Job, card: Card, needs: Needs) -> Knowledge:
    """What the method needs to know of the classes, in the card's order.

    Raises:
        DataRejected: a class has no accepted description.
        InputMissing, InputCorrupt: a file is not there, can't be read, or knows other classes.
    """
    return Knowledge(
        descriptions=_descriptions(job.inputs["descriptions"], card) if "descriptions" in needs.knowledge else (),
        hidden_states=_hidden_states(job.inputs["hidden_states"], card) if "hidden_states" in needs.knowledge else (),
    )


def _descriptions(path: Path, card: Card) -> tuple[tuple[str, ...], ...]:
    from clinprompt.knowledge.record import read_descriptions

    frame = read_descriptions(path)
    accepted = frame[frame["accepted"].astype(bool)]
    found = {label: tuple(accepted.loc[accepted["class"] == label, "text"]) for label in card.class_ids}
    for label, texts in found.items():
        if not texts:
            raise DataRejected(
                f"The class {label!r} has no accepted description in {path}, and the method needs some; raise "
                "knowledge.descriptions_per_aspect or knowledge.min_accepted_per_class in params.yaml, or name "
                f"another knowledge.llm. {_AGAIN}."
            )
    return tuple(found.values())


def _hidden_states(path: Path, card: Card) -> tuple[torch.Tensor, ...]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except SafetensorError as error:
        raise InputCorrupt(f"{path} can't be read ({error}). {_AGAIN}.") from None
    for label in card.class_ids:
        if label not in found:
            raise InputCorrupt(f"{path} has no hidden states of the class {label!r}. {_AGAIN}.")
    return tuple(found[label].float() for label in card.class_ids)
