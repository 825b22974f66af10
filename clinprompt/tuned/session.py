"""What all trainings of one stage share: a dataset, a backbone, the classes' knowledge, and how they are trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clinprompt import __version__
from clinprompt.backbones.device import choose_device, computes_bfloat16
from clinprompt.backbones.load import Backbone
from clinprompt.data.dataset import Dataset
from clinprompt.features.store import FeatureStore
from clinprompt.files import sha256_file
from clinprompt.params import BackboneParams, TrainingParams
from clinprompt.prompting.base import PromptMethod, file_of
from clinprompt.prompting.batches import Examples
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section
from clinprompt.training.augmentation import Augmentation
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.distributed import ALONE, Ranks
from clinprompt.training.inputs import ExampleLoader, open_backbone
from clinprompt.training.loop import Run, micro_batches
from clinprompt.tuned.transfer import built

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningSession:
    """A stage's inputs, opened once, and what is made of them for each model.

    Attributes:
        training: the knobs that all methods share.
        files: the stage's inputs by their names in component.yaml; of them `manifest` and, where a method needs
            knowledge, `descriptions` and `hidden_states` are read.
    """

    dataset: Dataset
    backbone: Backbone
    loader: ExampleLoader
    training: TrainingParams
    files: Mapping[str, Path]

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        files: Mapping[str, Path],
        backbone: BackboneParams,
        training: TrainingParams,
        scratch: Path,
    ) -> "TuningSession":
        """Open the cached features and load the backbone that they are of, on the device that `training` asks for.

        Args:
            files: the stage's inputs, `features` among them.
            scratch: a folder for what is too large for memory.

        Raises:
            BadParams: there is no such device or backbone.
            InputMissing, InputCorrupt: the features can't be read, or are another backbone's.
        """
        store, device = FeatureStore.open(files["features"]), choose_device(training.device)
        loaded = open_backbone(backbone.name, backbone.path, device, store, files["features"])
        loader = ExampleLoader(dataset, store, scratch, loaded, files.get("descriptions"))
        return cls(dataset, loaded, loader, training, files)

    @cached_property
    def is_mixed(self) -> bool:
        """Whether to train in bfloat16: as asked for, where that is faster. Warns where it is asked for in vain."""
        asked, able = self.training.precision, computes_bfloat16(self.backbone.device)
        if asked != "float32" and not able:
            log.warning(
                "training.precision: %s needs a GPU, or a CPU with instructions for it; training in float32.", asked
            )
        return asked != "float32" and able

    def autocast(self) -> torch.autocast:
        """The context that computes as training does."""
        return torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.is_mixed)

    def build(
        self, cls: type[PromptMethod], config: Section, seed: int, classes: Sequence[str] | None = None
    ) -> PromptMethod:
        """The method, untrained, for some classes of the card; by default for all.

        Args:
            classes: ids, in the order of the class indices.

        Raises:
            NotTrained: the knobs don't fit the backbone, or a class lacks what the method learns from.
            InputMissing, InputCorrupt: the knowledge that it needs is not there, or can't be read.
        """
        listed = self.dataset.card.classes
        by_id = {info.id: info for info in listed}
        chosen = listed if classes is None else [by_id[label] for label in classes]
        return built(cls, config, seed, chosen, self.backbone, self.files)

    def examples(self, model: PromptMethod, rows: pd.DataFrame, augmentation: Augmentation = "none") -> Examples:
        """The images of the manifest's rows, at the level that the model reads."""
        return self.loader.examples(model, rows, augmentation)

    def run(self, config: Section, seed: int, checkpoint: Checkpoint | None = None, ranks: Ranks = ALONE) -> Run:
        """How a method with this config is trained.

        Raises:
            BadParams: the variable CLINPROMPT_MICRO_BATCHES is no whole number of at least 1.
        """
        parts = micro_batches(config.batch_size) if isinstance(config, OptimiserSettings) else 1
        return Run(seed, checkpoint, parts, self.is_mixed, ranks)

    def data_facts(self) -> dict[str, Any]:
        """What numbers on this data depend on, for their record: by digest where it is a file."""
        return {
            "dataset": self.dataset.card.name,
            "classes": self.dataset.card.class_ids,
            "manifest": sha256_file(self.files["manifest"]),
            "backbone": {"name": self.backbone.name, "digest": self.backbone.digest},
        }

    def method_facts(self, cls: type[PromptMethod], config: Section) -> dict[str, Any]:
        """The same of numbers that a method with this config gives, and what it was run with."""
        return self.data_facts() | {
            "method": cls.name,
            "config": config.model_dump(mode="json"),
            "knowledge": {key: sha256_file(self.files[file_of(key)]) for key in sorted(cls.needs(config).knowledge)}
            or None,
            "versions": {"torch": str(torch.__version__), "clinprompt": __version__},
        }
