"""What is to be promoted: a decision, and the files that the model is made from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.evaluation.decision import ChosenCandidate, DecisionRecord
from clinprompt.evaluation.metrics_record import Metrics
from clinprompt.files import sha256_bytes, sha256_file, to_json
from clinprompt.params import RegistryParams
from clinprompt.tuned.artifact import RECORD
from clinprompt.tuned.record import ModelRecord
from registry.backbone import BackboneFiles
from registry.package import CALIBRATION, calibration_bytes
from registry.served_code import code_of
from registry.training_texts import TrainingTexts

if TYPE_CHECKING:
    from registry.verify import Sample


@dataclass(frozen=True)
class PromotionRequest:
    """What a decision and its files say about the model to promote.

    Attributes:
        names: of the experiment and the registered models, with the dataset's name filled in.
        params: the file of the params; beside it lie DVC's lock and the images'.
        model: the tuned model's folder.
        max_pixels: of the largest image that the model is to take.
        backbone: finds the backbone's files; called only when there is something to register.
        sample: images that the registered model must classify as the gate saw it before it becomes the champion.
    """

    dataset: str
    names: RegistryParams
    params: Path
    decision: DecisionRecord
    decision_file: Path
    card: Path
    model: Path
    descriptions: Path
    manifest: Path
    metrics: Path
    max_pixels: int
    backbone: Callable[[], BackboneFiles]
    sample: Callable[[], "Sample"]

    @property
    def chosen(self) -> ChosenCandidate:
        """The candidate that the decision chose; only an accepted one is promoted."""
        if self.decision.chosen is None:
            raise ValueError("a rejection chooses nothing")
        return self.decision.chosen

    @cached_property
    def record(self) -> ModelRecord:
        """The record of the tuned model, from its folder."""
        return ModelRecord.read(self.model / RECORD)

    @cached_property
    def measured(self) -> Metrics:
        """The choice's metrics, and what was fitted for serving it."""
        return Metrics.read(self.metrics)

    @cached_property
    def texts(self) -> TrainingTexts:
        """What the training ran from, to be kept beside the payload."""
        return TrainingTexts.read(self.dataset, self.params, self.descriptions if self.record.knowledge else None)

    @property
    def inputs_digest(self) -> str:
        """Of all that the payload is made from. Cheap: the backbone counts by the digest in model.yaml."""
        calibration = self.measured.calibration
        parts = {
            "model": self.chosen.model_digest,
            "max_pixels": str(self.max_pixels),
            **({self.descriptions.name: sha256_file(self.descriptions)} if self.record.knowledge else {}),
            **({CALIBRATION: sha256_bytes(calibration_bytes(calibration))} if calibration else {}),
            **{name: sha256_bytes(source) for name, source in code_of(self.record).items()},
        }
        return sha256_bytes(to_json(parts).encode())
