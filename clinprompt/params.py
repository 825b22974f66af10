"""`params.yaml`: every knob of the pipeline, checked."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from clinprompt.contract.candidates import CandidateId
from clinprompt.contract.params_schema import knowledge_of, method_names
from clinprompt.errors import BadParams
from clinprompt.knobs import NEW_METHOD, Knobs, ProtocolKnobs, knob_problems
from clinprompt.knowledge_params import KnowledgeParams
from clinprompt.schema import Count, Fraction, Name, Section, UserPath, check, key_errors, read_yaml

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "kappa", "quadratic_kappa"]
Augmentation = Literal["none", "crop", "crop_flip", "fundus"]  # of training images
NEGATIVE = ("kappa", "quadratic_kappa")  # these reach down to -1

# A mapping, of which a file may leave nothing but the key.
_Mapping = BeforeValidator(lambda value: {} if value is None else value)


_WRONG_LIST = {
    "methods": "methods: {name!r} reads what the stage describe makes; list it under candidates.taught",
    "taught": "taught: {name!r} reads nothing of the stage describe; list it under candidates.methods",
}


def no_such_candidate(name: str, variants: Iterable[str], key: str = "methods") -> str:
    """The sentence about a name that is neither a method's nor a variant's."""
    close = difflib.get_close_matches(name, [*method_names(), *variants], n=1)
    hint = f"did you mean {close[0]!r}?" if close else NEW_METHOD
    return f"candidates.{key}: {name!r} is neither a method nor one of candidates.variants ({hint})"


class Variant(Section):
    """A method with knobs of its own, which stand beside `method`."""

    model_config = ConfigDict(extra="allow")

    method: Name

    @property
    def knobs(self) -> dict[str, Any]:
        """What stands beside `method`."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _knobs_are_the_methods(self) -> "Variant":
        if self.method not in method_names():
            raise key_errors([f"method: there is no method {self.method!r}; known: {', '.join(method_names())}"])
        if problems := knob_problems(self.method, self.knobs):
            raise key_errors(problems)
        return self


class CandidatesParams(Section):
    """What competes: every name with every seed. A name is a method, or one of `variants`.

    `taught` lists the candidates that read what the stage `describe` makes, `methods` the others: so the graph knows,
    before anything runs, who has to wait for a language model. With `all_required`, one that can't be trained stops the
    run; else the others are judged without it.
    """

    methods: list[Name]
    taught: list[Name] = []
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(min_length=1)
    variants: Annotated[dict[Name, Variant], _Mapping] = {}
    all_required: bool = False

    @model_validator(mode="after")
    def _names_are_known(self) -> "CandidatesParams":
        known = method_names()
        problems = [f"variants.{name}: is a method's name; choose another" for name in self.variants if name in known]
        for key, names in (("methods", self.methods), ("taught", self.taught)):
            for name in names:
                if name not in known and name not in self.variants:
                    problems.append(no_such_candidate(name, self.variants, key).removeprefix("candidates."))
                elif (key == "taught") != self.is_taught(name):
                    problems.append(_WRONG_LIST[key].format(name=name))
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        problems += [f"methods: {name!r} stands there twice" for name in repeated]
        if not self.names:
            problems.append("methods: name at least one method")
        if problems:
            raise key_errors(problems)
        return self

    @property
    def names(self) -> list[str]:
        """All that compete, whether they are taught or not."""
        return [*self.methods, *self.taught]

    def is_taught(self, name: str) -> bool:
        """Whether a listed name reads what the stage `describe` makes, with its method's defaults or its own knobs."""
        own = self.variants[name].knobs if name in self.variants else {}
        return bool(knowledge_of(self.method_of(name), own))

    @property
    def ids(self) -> list[CandidateId]:
        """All candidates: every name with every seed."""
        return [CandidateId(name, seed) for name in self.names for seed in self.seeds]

    def method_of(self, name: str) -> str:
        """The method of a listed name."""
        return self.variants[name].method if name in self.variants else name


class CandidateSpec(Section):
    """What a listed name means.

    Attributes:
        knobs: what params.yaml sets for the method: a dataset's card wins over it.
        variant: what the variant sets, empty for a plain method. It wins over everything, the card too: a sweep must be
            able to set what a card sets.
    """

    name: str
    method: str
    knobs: dict[str, Any]
    variant: dict[str, Any] = {}


class DataParams(Section):
    """Where the datasets' files lie."""

    root: UserPath | None


class ValidationParams(Section):
    """Bounds that every dataset must keep; a card may add to them."""

    min_side: Annotated[int, Field(ge=1, le=100_000)]
    max_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)]
    min_images_per_class: Count
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    near_duplicate_correlation: Fraction


class BackboneParams(Section):
    """Which vision-language backbone: an entry of the table, its weights optionally from a local folder."""

    name: Name
    path: UserPath | None


class CacheParams(Section):
    """How the frozen image features are computed."""

    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    workers: Annotated[int, Field(ge=0, le=1_024)]
    precision: Literal["float32", "bfloat16"]


class TrainingParams(Section):
    """What all methods share."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Count
    precision: Literal["float32", "bfloat16"]
    augmentation: Augmentation
    shots: Count | None
    checkpoint_every: Count


class CalibrationParams(Section):
    """What is fitted on the validation split for the served model.

    Attributes:
        min_patients: of the validation split; with fewer no temperature is fitted.
        coverage: how often a prediction set is to hold the true class.
        abstention_error, abstention_confidence: of the patients whom the model answers, at most which share may get a
            wrong answer, and with what confidence that must be shown.
    """

    min_patients: Count
    coverage: Annotated[float, Field(ge=0.5, le=0.999)]
    abstention_error: Annotated[float, Field(gt=0, lt=1)]
    abstention_confidence: Annotated[float, Field(ge=0.5, le=0.999)]


class EvaluationParams(Section):
    """Intervals, calibration and slices."""

    confidence: Annotated[float, Field(gt=0, lt=1)]
    calibration_bins: Annotated[int, Field(ge=1, le=1_000)]
    age_bands: list[float]
    slices: list[str]
    calibration: CalibrationParams

    @model_validator(mode="after")
    def _bands_ascend(self) -> "EvaluationParams":
        if sorted(set(self.age_bands)) != self.age_bands:
            raise ValueError("age_bands must ascend")
        return self


class ExplainParams(Section):
    """How many images the pictures of a tuned model are made from."""

    examples_per_class: Count
    images: Count
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class RuleParams(Section):
    """A rule of the gate: its `kind`, and beside it the knobs of that rule (`clinprompt/evaluation/rules/`)."""

    model_config = ConfigDict(extra="allow")

    kind: Name


class BudgetParams(Section):
    """How often one test split may decide (`clinprompt.evaluation.budget`).

    Attributes:
        decisions: after so many it decides no more; None: no end.
        spending: `fallback`: all of them together err with at most `gate.alpha`; `none`: each of them does.
    """

    decisions: Count | None
    spending: Literal["fallback", "none"]

    @property
    def counts(self) -> bool:
        """Whether anything depends on how many there were."""
        return self.decisions is not None or self.spending != "none"


class GateParams(Section):
    """What a candidate must reach to be promoted.

    Attributes:
        select_by: the metric that picks the challenger on the validation split, and by which it is compared.
        alpha: with at most this probability a bad model passes, one-sided; `budget` says how decisions share it.
        budget: of the test split.
        min_patients_per_class: with fewer, a floor, a ceiling or a slice can't be told.
        rules: all of them must pass; `clinprompt.evaluation.rules.parse_rules` checks their knobs.
    """

    select_by: Metric
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    budget: BudgetParams
    min_patients_per_class: Count
    rules: list[RuleParams] = Field(min_length=1)

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The rules as plain values, `kind` first."""
        return [rule.model_dump() for rule in self.rules]


def _template(value: str) -> str:
    if re.search(r"[{}]", value.replace("{dataset}", "")) or not value.strip():
        raise ValueError(f"{value!r} is no name; of braces it may hold only {{dataset}}, for the dataset's name")
    return value


def _model_template(value: str) -> str:
    if not re.fullmatch(r"\w[\w .-]*", _template(value).replace("{dataset}", "dataset")):
        raise ValueError(
            f"{value!r} can't be the name of a registered model, which is of letters, digits, '.', '_', '-' and spaces"
        )
    return value


_NameTemplate = Annotated[str, AfterValidator(_template)]
_ModelTemplate = Annotated[str, AfterValidator(_model_template)]


class RegistryParams(Section):
    """Names in the MLflow registry; `{dataset}` stands for the dataset's name.

    Attributes:
        journal: where the promotions to an MLflow server are written down: s3://bucket/prefix, or a folder that all who
            promote reach. A local store has it beside itself.
        reproduce: whether a model must have come out of a second training, to the last bit, before it is promoted.
        reproduce_tolerance: of one that was trained on a GPU, by how much the validation probabilities of the second
            one may differ instead; None: not at all.
    """

    experiment: _NameTemplate
    candidate_model: _ModelTemplate
    production_model: _ModelTemplate
    results: _NameTemplate
    approval: Literal["none", "required"]
    reproduce: Literal["none", "required"]
    reproduce_tolerance: Annotated[float, Field(gt=0, lt=1)] | None
    journal: str | None

    def of(self, dataset: str) -> "RegistryParams":
        """The same with the dataset's name filled in."""
        templates = ("experiment", "candidate_model", "production_model", "results")
        return self.model_copy(update={key: getattr(self, key).format(dataset=dataset) for key in templates})


class AirflowParams(Section):
    """How the DAGs in dags/ run; no stage depends on it."""

    runner: Literal["local", "docker", "kubernetes"]
    python: UserPath
    sweep: str
    deadline_hours: Count
    owner: str
    approval_hours: Count
    review: Literal["by_hand", "after_runs"] = "by_hand"
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
    methods: Annotated[Knobs, _Mapping]
    protocols: ProtocolKnobs
    evaluation: EvaluationParams
    explain: ExplainParams
    gate: GateParams
    registry: RegistryParams
    airflow: AirflowParams

    @model_validator(mode="after")
    def _experiments_are_of_what_there_is(self) -> "Params":
        known, sentences = [*method_names(), *self.candidates.variants], []
        for place, name in enumerate(self.protocols.get("methods", [])):
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "neither a method nor one of candidates.variants"
                sentences.append(f"protocols.methods.{place}: there is no such name ({hint}), found {name!r}")
        if sentences:
            raise ValueError("; ".join(sentences))
        return self

    def candidate(self, name: str) -> CandidateSpec:
        """What a name means that `candidates.methods` may list: a variant, or a method with its knobs.

        Raises:
            BadParams: it is neither.
        """
        variants = self.candidates.variants
        if name in variants:
            method, own = variants[name].method, variants[name].knobs
            return CandidateSpec(name=name, method=method, knobs=self.methods.get(method, {}), variant=own)
        if name not in method_names():
            raise BadParams(f"params.yaml: {no_such_candidate(name, variants)}.")
        return CandidateSpec(name=name, method=name, knobs=self.methods.get(name, {}))


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`."""
    return check(Params, read_yaml(path), str(path))
