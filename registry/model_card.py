"""The model card: checked data, and its rendering for people.

The sections are those of a MONAI bundle's `metadata.json` (task, data, inputs and outputs, classes, evaluation,
intended use, references) and of Mitchell et al. 2019 (slices, limits, licences). `model_card.json` lies beside the
payload, with `model_card.md` made from it; `python -m registry.model_card` prints its JSON schema, which stands in
`registry/model_card.schema.json`.
"""

import json
import sys
from typing import Any, ClassVar

from clinprompt.backbones.table import read_table
from clinprompt.data.card import Card
from clinprompt.evaluation.calibration_record import Calibration
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.metrics_record import ClassMetrics, Metrics, ScoreMetrics, SliceMetrics
from clinprompt.evaluation.patients import PatientCount
from clinprompt.records import Record, RecordPart
from clinprompt.tuned.record import BackboneRef, ModelRecord

MODEL_CARD = "model_card.json"
INTENDED_USE = "For research on images like those of the dataset, taken and stored the same way."
NOT_FOR = ["diagnosis: its probabilities are none", "use as a medical device: it is none"]


class CardClass(RecordPart):
    """A class: its id in the columns of predictions, its clinical name, and the phrase that prompts are made of."""

    id: str
    name: str
    phrase: str


class CardData(RecordPart):
    """What the model was trained and tested on; `patients` of all accepted images."""

    name: str
    title: str
    modality: str
    organ: str
    source: str
    how_to_get: str
    manifest: str
    classes: list[CardClass]
    patients: PatientCount
    warning: str | None


class CardUse(RecordPart):
    """What the model is for, and what not."""

    intended: str
    not_for: list[str]


class CardTraining(RecordPart):
    """How it was trained; `support` is the digest of the list of training images, and `device` is `cuda` where that was
    on a GPU, whose rounding is not promised to be the same twice."""

    split: str
    method: str
    config: dict[str, Any]
    seed: int
    trainable_parameters: int
    backbone: BackboneRef
    device: str
    precision: str
    augmentation: str | None
    versions: dict[str, str]
    knowledge: dict[str, str] | None
    support: str


class CardInterface(RecordPart):
    """What it is given and gives: column -> meaning."""

    input: dict[str, str]
    output: dict[str, str]
    preprocessing: dict[str, Any]
    intensity: str | list[float]


class CardEvaluation(RecordPart):
    """Metrics with intervals; those of classes and slices on the test split."""

    intervals_over: str
    confidence: float
    val: dict[str, Estimate]
    test: dict[str, Estimate]
    per_class: dict[str, ClassMetrics]
    slices: dict[str, SliceMetrics]
    not_sliced: dict[str, str]
    score: ScoreMetrics | None


class CardDecision(RecordPart):
    """Why it was let into the registry: what was asked for, and what was found."""

    verdict: str
    required: list[str]
    reasons: list[str]


class CardLicences(RecordPart):
    """Of the images, and of the backbone's weights; None where that is a folder of somebody's own."""

    data: str
    backbone: str | None


class ModelCard(Record):
    """The whole of a `model_card.json`; `origin` is the lineage."""

    FORMAT: ClassVar[int] = 1
    STAGE: ClassVar[str] = "promote"

    name: str
    task: str
    architecture: str
    use: CardUse
    limits: list[str]
    data: CardData
    training: CardTraining
    interface: CardInterface
    evaluation: CardEvaluation
    calibration: Calibration | None
    decision: CardDecision
    licences: CardLicences
    origin: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with what is None: a card says what is not known."""
        return {"format": self.FORMAT, **self.model_dump()}


def make_model_card(
    card: Card, model: ModelRecord, metrics: Metrics, decision: DecisionRecord, origin: dict[str, str]
) -> ModelCard:
    """The card of a tuned model.

    Args:
        card: of the dataset.
        origin: the lineage.
    """
    names = ", ".join(info.name for info in card.classes)
    entry = read_table().get(model.backbone.name)
    return ModelCard(
        name=f"{card.title}: {model.candidate}",
        task=f"Classifies one {image_of(card)} into {names}.",
        architecture=built_on(model),
        use=CardUse(intended=INTENDED_USE, not_for=NOT_FOR),
        limits=[*_limits(metrics), *([entry.limits] if entry is not None else [])],
        data=CardData(
            name=card.name,
            title=card.title,
            modality=card.modality,
            organ=card.organ,
            source=card.source,
            how_to_get=card.how_to_get,
            manifest=model.manifest,
            classes=[CardClass(id=info.id, name=info.name, phrase=info.phrase) for info in card.classes],
            patients=metrics.patients,
            warning=metrics.patients.warning,
        ),
        training=CardTraining(split="train", **model.model_dump(include=set(CardTraining.model_fields) - {"split"})),
        interface=CardInterface(
            input={"image": "an encoded image's bytes, the same in base64, or a path"},
            output=_columns(model, metrics.calibration),
            preprocessing=model.preprocessing,
            intensity=model.intensity,
        ),
        evaluation=CardEvaluation(
            intervals_over=metrics.patients.unit,
            confidence=decision.params.confidence,
            **{key: getattr(metrics, key) for key in ("val", "test", "per_class", "slices", "not_sliced", "score")},
        ),
        calibration=metrics.calibration,
        decision=CardDecision(verdict=decision.verdict, required=decision.required, reasons=decision.reasons),
        licences=CardLicences(data=card.licence, backbone=entry.licence if entry is not None else None),
        origin=origin,
    )


def image_of(card: Card) -> str:
    """What a model is given, without what the card leaves open: "MRI image (brain)", "medical image"."""
    picture = card.modality if card.modality.endswith("image") else f"{card.modality} image"
    return picture if card.organ == "unknown" else f"{picture} ({card.organ})"


def built_on(model: ModelRecord) -> str:
    """What is frozen, and what predicts."""
    backbone = f"`{model.backbone.name}`"
    if model.needs_only_head:
        return f"The image tower of {backbone} is frozen."
    return f"Built on {backbone}; the method's own code predicts, and is part of the model."


def schema() -> str:
    """The JSON schema of a `model_card.json`, as it stands in `registry/model_card.schema.json`."""
    told = ModelCard.model_json_schema()
    told["properties"] = {"format": {"const": ModelCard.FORMAT}, **told["properties"]}
    told["required"] = ["format", *told["required"]]
    return json.dumps(told, indent=2, sort_keys=True) + "\n"


def _limits(metrics: Metrics) -> list[str]:
    """What follows from the numbers, after what holds of every model here."""
    limits = ["It always names one of the classes, for images of anything else too."]
    if metrics.patients.warning:
        limits.append(metrics.patients.warning)
    small = [name for name, part in metrics.slices.items() if part.small]
    if small:
        limits.append(f"Slices with too few images to tell: {', '.join(small)}.")
    if metrics.not_sliced:
        why = "; ".join(f"{column}: {reason}" for column, reason in metrics.not_sliced.items())
        limits.append(f"Not measured by {why}.")
    fitted = metrics.calibration
    if fitted is not None:
        sets, abstention = fitted.prediction_sets, fitted.abstention
        unfitted = (fitted.temperature_reason, sets.reason, abstention.reason if abstention.threshold is None else None)
        limits += [f"{what}: {why}." for what, why in zip(_UNFITTED, unfitted, strict=True) if why]
        if fitted.not_exchangeable:
            limits.append(
                f"The prediction sets hold the true class less often than {sets.coverage:g} on the test split (of "
                f"{', '.join(fitted.not_exchangeable)}): it differs from the validation split, and so may new images."
            )
    return limits


_UNFITTED = ("No temperature", "Prediction sets", "No threshold to abstain by")


def _columns(model: ModelRecord, calibration: Calibration | None) -> dict[str, str]:
    columns = {"label": "the class with the highest probability", "probability": "its probability"}
    columns |= {f"p_{name}": f"probability of {name}" for name in model.classes}
    if calibration is not None and calibration.prediction_sets.thresholds is not None:
        coverage = calibration.prediction_sets.coverage
        columns["prediction_set"] = f"the classes of which one is the true one in {coverage:.0%} of the cases"
    if calibration is not None and calibration.abstention.threshold is not None:
        columns["abstain"] = f"whether the highest probability is below {calibration.abstention.threshold:g}"
    if model.score is not None:
        columns[f"{model.score}_estimate"] = f"estimate of {model.score}"
    return columns


if __name__ == "__main__":
    sys.stdout.write(schema())
