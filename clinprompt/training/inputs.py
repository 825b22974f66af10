"""What a method reads: labelled images at the level that it reads, and what a language model says of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.data.dataset import Dataset
from clinprompt.data.preprocessing import AnyPreprocessing, Preprocessing
from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing, NotTrained
from clinprompt.features.extract import Encode
from clinprompt.features.precompute import precompute
from clinprompt.features.store import FeatureStore
from clinprompt.prompting.base import Knowledge, Needs, PromptMethod
from clinprompt.prompting.batches import Examples
from clinprompt.training.augmentation import Augmentation, CropFlip
from clinprompt.training.pictures import Pictures
from clinprompt.training.records import RecordTensors, records_of

_AGAIN = "Run the stage describe again (dvc repro)"
_NOT_GIVEN = "The method reads the classes' {what}: list it under candidates.taught in params.yaml, or give {option}."


@dataclass(frozen=True)
class ExampleLoader:
    """Gives methods what they read of a dataset's images.

    Attributes:
        store: the images' cached features.
        scratch: a folder for what is too large for memory.
        descriptions: the table of the stage describe, for reports that are paraphrased.
    """

    dataset: Dataset
    store: FeatureStore
    scratch: Path
    backbone: Backbone
    descriptions: Path | None = None

    def examples(self, model: PromptMethod, rows: pd.DataFrame, augmentation: Augmentation = "none") -> Examples:
        """The images of a manifest's rows: their cached features, or what the method makes of their pixels.

        What is augmented is read at its own size, and drawn and prepared batch by batch. A method that reads records
        gets the subjects' reports and scores beside them.

        Raises:
            NotTrained: the method reads records, and the card tells of none; or volumes are to be augmented.
            DataRejected: a cell of a record is no number.
        InputMissing, InputCorrupt: the paraphrases that its reports need are not there, or can't be read.
        """
        labels = self.dataset.labels(rows)
        needs = model.needed
        records: RecordTensors = {}
        if needs.reports is not None:
            records = records_of(self.dataset, rows, needs.reports, self.backbone, model.name, self.descriptions)
        if needs.images == "features":
            features = Examples.of(self.store.get(rows["id"].tolist()), labels, self.backbone.device)
            return replace(features, **records)

        def prepare(pixels: torch.Tensor) -> torch.Tensor:
            return model.prepare(pixels.to(self.backbone.device))

        targets = torch.tensor(labels, device=self.backbone.device)
        if augmentation == "none":
            return Examples(self._pixels(rows, needs, prepare), targets, **records)
        asked = preprocessing(self.backbone, needs)
        if not isinstance(asked, Preprocessing):
            raise NotTrained(
                f"params.yaml: training.augmentation: {augmentation} is for pictures, and {self.backbone.name} reads "
                "volumes; set it to none."
            )
        pictures = Pictures(self.dataset.items(rows), asked, self.dataset.card.intensity)
        none = torch.zeros(len(rows), 0)
        return CropFlip(none, targets, prepare, augmentation=augmentation, pictures=pictures, **records)

    def _pixels(self, rows: pd.DataFrame, needs: Needs, encode: Encode) -> torch.Tensor:
        return precompute(
            encode,
            self.dataset.items(rows),
            preprocessing(self.backbone, needs),
            self.backbone.device,
            intensity=self.dataset.card.intensity,
            folder=self.scratch,
        )


def open_backbone(name: str, path: str | None, device: str, store: FeatureStore, where: Path) -> Backbone:
    """The backbone that the cached features in the folder `where` are of.

    Raises:
        InputCorrupt: they are another's.
    """
    backbone = load_backbone(name, path, device)
    if store.backbone_digest != backbone.digest:
        raise InputCorrupt(
            f"{where} holds features of the backbone {store.backbone_digest[:12]}, but backbone.name is {name} "
            f"({backbone.digest[:12]}); run the cache stage again (dvc repro)."
        )
    return backbone


def preprocessing(backbone: Backbone, needs: Needs) -> AnyPreprocessing:
    """The backbone's, at the size that the method asks for.

    Raises:
        BadParams: it asks for a size of pictures, and the backbone reads volumes.
    """
    own = backbone.preprocessing
    if needs.image_size is None:
        return own
    if not isinstance(own, Preprocessing):
        raise BadParams(f"params.yaml: image_size: {backbone.name} reads volumes; leave it null.")
    return replace(own, size=needs.image_size)


def knowledge(needs: Needs, classes: Sequence[str], descriptions: Path | None, hidden_states: Path | None) -> Knowledge:
    """What the method needs to know of the classes, in their order, from the files of the stage describe.

    Raises:
        DataRejected: a class has no accepted description.
        InputMissing, InputCorrupt: a file is not there, can't be read, or knows other classes.
    """
    return Knowledge(
        descriptions=_descriptions(descriptions, classes) if "descriptions" in needs.knowledge else (),
        hidden_states=_hidden_states(hidden_states, classes) if "hidden_states" in needs.knowledge else (),
    )


def _descriptions(path: Path | None, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    from clinprompt.knowledge.outputs import read_descriptions

    if path is None:
        raise InputMissing(_NOT_GIVEN.format(what="descriptions", option="--descriptions"))
    frame = read_descriptions(path)
    accepted = frame[frame["accepted"].astype(bool)]
    by_class = {label: tuple(accepted.loc[accepted["class"] == label, "text"]) for label in classes}
    for label, texts in by_class.items():
        if not texts:
            raise DataRejected(
                f"The class {label!r} has no accepted description in {path}, and the method needs some; raise "
                "knowledge.descriptions_per_aspect or knowledge.min_accepted_per_class in params.yaml, or name "
                f"another knowledge.llm. {_AGAIN}."
            )
    return tuple(by_class.values())


def _hidden_states(path: Path | None, classes: Sequence[str]) -> tuple[torch.Tensor, ...]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path is None:
        raise InputMissing(_NOT_GIVEN.format(what="hidden states", option="--hidden-states"))
    try:
        by_class = load_file(path)
    except SafetensorError as error:
        raise InputCorrupt(f"{path} can't be read ({error}). {_AGAIN}.") from None
    for label in classes:
        if label not in by_class:
            raise InputCorrupt(f"{path} has no hidden states of the class {label!r}. {_AGAIN}.")
    return tuple(by_class[label].float() for label in classes)
