"""`params.yaml`, checked: every key must exist and have the right type, and an error names it by its path."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from clinprompt.errors import BadParams, InputMissing

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "kappa", "quadratic_kappa"]


class Section(BaseModel):
    """A part of a checked YAML file: immutable, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Candidates(Section):
    """What competes: every method with every seed."""

    methods: list[Name] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class Data(Section):
    """Where the datasets' files lie."""

    root: str | None


class Validation(Section):
    """Bounds that every dataset must keep; a card may add to them."""

    min_side: PositiveInt
    max_pixels: PositiveInt
    min_images_per_class: PositiveInt
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    near_duplicate_correlation: Fraction


class BackboneChoice(Section):
    """Which vision-language backbone: an entry of the table, its weights optionally from a local folder."""

    name: Name
    path: str | None


class Knowledge(Section):
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


class Cache(Section):
    """How the frozen image features are computed."""

    batch_size: PositiveInt
    workers: Annotated[int, Field(ge=0)]
    precision: Literal["float32", "bfloat16"]


class Training(Section):
    """What all methods share."""

    device: Literal["auto", "cpu", "cuda"]
    processes: PositiveInt
    precision: Literal["float32", "bfloat16"]
    augmentation: Literal["none", "crop_flip"]
    shots: PositiveInt | None
    checkpoint_every: PositiveInt


class Evaluation(Section):
    """Intervals, calibration and slices."""

    bootstrap_resamples: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    calibration_bins: PositiveInt
    age_bands: list[float]
    slices: list[str]

    @model_validator(mode="after")
    def _bands_ascend(self) -> "Evaluation":
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError("age_bands must ascend")
        return self


class Explain(Section):
    """How many images the pictures of a tuned model are made from."""

    examples_per_class: PositiveInt
    images: PositiveInt
    seed: Annotated[int, Field(ge=0)]


class Gate(Section):
    """What a candidate must reach to be promoted."""

    select_by: Metric
    floors: dict[Metric, float]
    margin: Fraction


class Registry(Section):
    """Names in the MLflow registry; `{dataset}` stands for the dataset's name."""

    experiment: str
    candidate_model: str
    production_model: str
    results: str
    approval: Literal["none", "required"]


class Airflow(Section):
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
    candidates: Candidates
    data: Data
    validation: Validation
    backbone: BackboneChoice
    knowledge: Knowledge
    cache: Cache
    training: Training
    methods: dict[str, dict[str, Any]]
    protocols: dict[str, Any]
    evaluation: Evaluation
    explain: Explain
    gate: Gate
    registry: Registry
    airflow: Airflow

    @model_validator(mode="after")
    def _candidates_have_knobs(self) -> "Params":
        for method in self.candidates.methods:
            if method not in self.methods:
                raise ValueError(f"candidates.methods names {method!r}, which has no entry under methods")
        return self


S = TypeVar("S", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """Read a YAML file without executing anything in it.

    Raises:
        InputMissing: there is no such file.
        BadParams: it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadParams(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def check(model: type[S], value: Any, where: str, prefix: str = "") -> S:
    """Validate `value` against a pydantic model.

    Args:
        where: the file that the value comes from, for the message.
        prefix: the path inside that file at which the value stands, as "methods.coop".

    Raises:
        BadParams: names the file, the key's path, what was expected and what was found.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(_describe(e, model, prefix) for e in error.errors(include_url=False))
        raise BadParams(f"{where}: {problems}.") from None


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`."""
    return check(Params, read_yaml(path), str(path))


def _describe(error: Any, model: type[BaseModel], prefix: str) -> str:
    loc = [str(part) for part in error["loc"]]
    key = ".".join(([prefix] if prefix else []) + loc) or "the file"
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        close = difflib.get_close_matches(loc[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"{key}: no such key ({hint})"
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if loc else message
    return f"{key}: {message[0].lower()}{message[1:]}, found {error['input']!r}"


def _fields_at(model: type[BaseModel], loc: list[str]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)
