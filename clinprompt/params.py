"""`params.yaml`: every knob of the pipeline, checked."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from clinprompt.schema import Fraction, Name, Section, check, read_yaml

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "kappa", "quadratic_kappa"]


class CandidatesParams(Section):
    """What competes: every method with every seed."""

    methods: list[Name] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class DataParams(Section):
    """Where the datasets' files lie."""

    root: str | None


class ValidationParams(Section):
    """Bounds that every dataset must keep; a card may add to them."""

    min_side: PositiveInt
    max_pixels: PositiveInt
    min_images_per_class: PositiveInt
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    near_duplicate_correlation: Fraction


class BackboneParams(Section):
    """Which vision-language backbone: an entry of the table, its weights optionally from a local folder."""

    name: Name
    path: str | None


class KnowledgeParams(Section):
    """How class descriptions are generated, and how many must be accepted."""

    llm: Name
    path: str | None
    seed: int
    aspects: list[str] = Field(min_length=1)
    descriptions_per_aspect: PositiveInt
    min_accepted_per_class: Annotated[int, Field(ge=0)]
    max_new_tokens: PositiveInt
    hidden_states: Literal["answer_end_all_layers", "question_end_all_layers", "answer_last_layer"]
    temperature: Annotated[float, Field(ge=0)]
    batch_size: PositiveInt


class CacheParams(Section):
    """How the frozen image features are computed."""

    batch_size: PositiveInt
    workers: Annotated[int, Field(ge=0)]
    precision: Literal["float32", "bfloat16"]


class TrainingParams(Section):
    """What all methods share."""

    device: Literal["auto", "cpu", "cuda"]
    processes: PositiveInt
    precision: Literal["float32", "bfloat16"]
    augmentation: Literal["none", "crop_flip"]
    shots: PositiveInt | None
    checkpoint_every: PositiveInt


class EvaluationParams(Section):
    """Intervals, calibration and slices."""

    bootstrap_resamples: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    calibration_bins: PositiveInt
    age_bands: list[float]
    slices: list[str]

    @model_validator(mode="after")
    def _bands_ascend(self) -> "EvaluationParams":
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError("age_bands must ascend")
        return self


class ExplainParams(Section):
    """How many images the pictures of a tuned model are made from."""

    examples_per_class: PositiveInt
    images: PositiveInt
    seed: Annotated[int, Field(ge=0)]


class GateParams(Section):
    """What a candidate must reach to be promoted."""

    select_by: Metric
    floors: dict[Metric, float]
    margin: Fraction


class RegistryParams(Section):
    """Names in the MLflow registry; `{dataset}` stands for the dataset's name."""

    experiment: str
    candidate_model: str
    production_model: str
    results: str
    approval: Literal["none", "required"]


class AirflowParams(Section):
    """How the DAGs in dags/ run; no stage depends on it."""

    runner: Literal["local", "docker", "kubernetes"]
    python: str
    sweep: str
    deadline_hours: PositiveInt
    owner: str
    approval_hours: PositiveInt
    namespace: Name


class Params(Section):
    """The whole of `params.yaml`."""

    datasets: list[Name] = Field(min_length=1)
    candidates: CandidatesParams
    data: DataParams
    validation: ValidationParams
    backbone: BackboneParams
    knowledge: KnowledgeParams
    cache: CacheParams
    training: TrainingParams
    methods: dict[str, dict[str, Any]]
    protocols: dict[str, Any]
    evaluation: EvaluationParams
    explain: ExplainParams
    gate: GateParams
    registry: RegistryParams
    airflow: AirflowParams

    @model_validator(mode="after")
    def _candidates_have_knobs(self) -> "Params":
        for method in self.candidates.methods:
            if method not in self.methods:
                raise ValueError(f"candidates.methods names {method!r}, which has no entry under methods")
        return self


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`."""
    return check(Params, read_yaml(path), str(path))
