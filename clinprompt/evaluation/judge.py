"""From a run's files to the record of the gate's decision: for the gate, and for whoever relies on it later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from clinprompt.evaluation.budget import Budget, HeldOut, Use, split_digest
from clinprompt.evaluation.decision import ChampionRef, DecisionInputs, DecisionParams, DecisionRecord
from clinprompt.evaluation.record_decision import input_digests, to_record
from clinprompt.files import sha256_bytes, to_json
from clinprompt.params import CandidatesParams, EvaluationParams, GateParams
from clinprompt.tuned.failure import failure_in

if TYPE_CHECKING:
    import numpy as np

    from clinprompt.data.dataset import Dataset
    from clinprompt.evaluation.behaviour import Behaviour, Trial
    from clinprompt.evaluation.contenders import Candidate, Incumbent, Probe, Slices
    from clinprompt.evaluation.gate import Plan
    from clinprompt.evaluation.predictions import Predictions

_BATCH = 256  # images in memory at a time


class Champion(Protocol):
    """What a decision asks of the model in production."""

    name: str
    version: int
    model_digest: str

    @property
    def classes(self) -> Sequence[str]:
        """The ids of its classes, in the order of its probabilities."""

    def predict(self, images: list[bytes]) -> "np.ndarray":
        """Probabilities (N, C) of encoded images."""


@dataclass(frozen=True)
class Judged:
    """All that a decision rests on but the champion: a run's files and its params.

    `probe` tries the challenger out where a rule asks for that: for a new decision a process of its own, for an earlier
    one what that one found (`told`).
    """

    dataset: str
    card: Path
    manifest: Path
    images: Path
    models: Path
    evaluations: Path
    candidates: CandidatesParams
    gate: GateParams
    evaluation: EvaluationParams
    probe: "Probe | None" = None

    @property
    def params(self) -> DecisionParams:
        """The params, as they are recorded."""
        return DecisionParams(
            select_by=self.gate.select_by,
            alpha=self.gate.alpha,
            budget=self.gate.budget.model_dump(),
            min_patients_per_class=self.gate.min_patients_per_class,
            rules=self.gate.listed,
            confidence=self.evaluation.confidence,
            calibration_bins=self.evaluation.calibration_bins,
        )

    def not_trained(self) -> dict[str, str]:
        """The candidates that could not be trained, by their folders' names, and why.

        Raises:
            InputCorrupt: a `failed.json` can't be read.
        """
        failures = {str(c): failure_in(self.models / str(c)) for c in self.candidates.ids}
        return {name: failure.reason for name, failure in failures.items() if failure is not None}

    def decide(self, champion: Champion | None, budget: Budget | None) -> DecisionRecord:
        """Judge the candidates by their predictions, beside the champion's on the test images.

        Args:
            budget: says which decision on the test split it is; None: nobody counts.

        Raises:
            BadParams: a rule of `gate.rules` is none.
        """
        from clinprompt.data.dataset import Dataset
        from clinprompt.evaluation.candidates import Listed, load_candidate
        from clinprompt.evaluation.gate import decide
        from clinprompt.evaluation.rules import trial_of

        plan = self._plan()
        ids = self.candidates.ids
        inputs = input_digests(self.card, self.manifest, self.models, self.evaluations, [str(c) for c in ids])
        dataset = Dataset.open(self.card, self.manifest, self.images)
        missing = self.not_trained()
        listed = [
            Listed(
                id=c,
                method=self.candidates.method_of(c.name),
                model_digest=inputs.models[str(c)],
                not_trained=missing.get(str(c)),
            )
            for c in ids
        ]
        candidates = [load_candidate(entry, self.evaluations, dataset) for entry in listed]
        tried = _Tried(self.probe, trial_of(plan.rules))
        if self.probe is not None:
            candidates = [replace(candidate, probe=tried) for candidate in candidates]
        incumbent = _incumbent(champion, candidates, dataset) if champion else None

        def count(challenger: "Candidate") -> HeldOut | None:
            return budget(self._use(challenger, inputs, dataset)) if budget is not None else None

        record = to_record(
            decide(candidates, incumbent, plan, self._slices(dataset), count),
            dataset=self.dataset,
            candidates=listed,
            champion=reference(champion) if champion else None,
            params=self.params,
            required=[rule.explain() for rule in plan.rules],
            inputs=inputs,
        )
        return record.model_copy(update={"tried": tried.found})

    def _use(self, challenger: "Candidate", inputs: DecisionInputs, dataset: "Dataset") -> Use:
        """The decision on a challenger; what changes no rule's outcome is no part of it."""
        test = dataset.rows[dataset.rows["split"] == "test"]
        spending = self.gate.budget.spending
        settings = {
            **self.params.model_dump(exclude={"confidence", "budget"}),
            "spending": spending,
            "manifest": inputs.manifest,
            "card": inputs.card,
        }
        return Use(
            test_set=split_digest(zip(test["id"], test["label"], strict=True)),
            images=len(test),
            candidate=challenger.name,
            predictions=str(inputs.predictions[challenger.name]),
            model=str(challenger.model_digest),
            settings=sha256_bytes(to_json(settings).encode()),
            alpha=self.gate.alpha,
            spending=spending,
            at_most=self.gate.budget.decisions,
        )

    def _plan(self) -> "Plan":
        from clinprompt.evaluation.gate import Plan
        from clinprompt.evaluation.intervals import Intervals
        from clinprompt.evaluation.rules import parse_rules

        return Plan(
            select_by=self.gate.select_by,
            rules=parse_rules(self.gate.listed),
            alpha=self.gate.alpha,
            fewest=self.gate.min_patients_per_class,
            intervals=Intervals(self.evaluation.confidence, self.evaluation.calibration_bins),
        )

    def _slices(self, dataset: "Dataset") -> "Slices":
        """Of the test split, by the columns that are measured."""
        from clinprompt.evaluation.slices import age_bands, slices_of
        from clinprompt.evaluation.summary import sliced_by
        from clinprompt.evaluation.table import evaluated_rows

        rows = evaluated_rows(dataset.rows)
        rows = rows[rows["split"] == "test"].reset_index(drop=True)
        rows["age_band"] = age_bands(rows["age"], self.evaluation.age_bands)
        return slices_of(rows, sliced_by(dataset, self.evaluation))


def told(record: DecisionRecord) -> "Probe | None":
    """A probe that tells what an earlier decision found; None where that found nothing."""
    found = record.tried
    return None if found is None else lambda candidate, trial: found


class _Tried:
    """A probe that measures once for all rules, and keeps what it found."""

    def __init__(self, probe: "Probe | None", whole: "Trial") -> None:
        self._probe, self._whole = probe, whole
        self.found: Behaviour | None = None

    def __call__(self, candidate: "Candidate", trial: "Trial") -> "Behaviour":
        if self.found is None and self._probe is not None:
            self.found = self._probe(candidate, self._whole)
        if self.found is None:
            raise ValueError("there is nothing to try a candidate out with")
        return self.found


def reference(champion: Champion) -> ChampionRef:
    """Which registry version the champion is."""
    return ChampionRef(name=champion.name, version=str(champion.version), model_digest=champion.model_digest)


def _incumbent(champion: Champion, candidates: "list[Candidate]", dataset: "Dataset") -> "Incumbent":
    """The champion on the test images: a candidate's predictions where it is one, else its own, made now."""
    from clinprompt.evaluation.contenders import Incumbent

    version, classes = str(champion.version), dataset.card.class_ids
    for candidate in candidates:
        if candidate.model_digest == champion.model_digest and candidate.test is not None:
            return Incumbent(champion.name, version, champion.model_digest, candidate.test)
    if sorted(champion.classes) != sorted(classes):
        problem = (
            f"the champion knows the classes {list(champion.classes)}, the card {classes}, so they can't be compared; "
            "to start a new line of champions, name it in registry.production_model of params.yaml, such as "
            f"{champion.name}-{len(classes)}-classes"
        )
        return Incumbent(champion.name, version, champion.model_digest, None, problem)
    return Incumbent(champion.name, version, champion.model_digest, _predict(champion, dataset))


def _predict(champion: Champion, dataset: "Dataset") -> "Predictions":
    """The champion's probabilities of the test images, in the order of the card's classes."""
    import numpy as np

    from clinprompt.data.dataset import read_image
    from clinprompt.data.manifest import patients
    from clinprompt.evaluation.predictions import Predictions
    from clinprompt.evaluation.table import evaluated_rows
    from clinprompt.progress import progress

    rows = evaluated_rows(dataset.rows)
    rows = rows[rows["split"] == "test"]
    listed, classes = dataset.items(rows), dataset.card.class_ids
    parts = [
        champion.predict([read_image(item) for item in listed[start : start + _BATCH]])
        for start in progress(range(0, len(listed), _BATCH), "champion on the test images", unit="batch")
    ]
    columns = [list(champion.classes).index(name) for name in classes]
    return Predictions(
        labels=dataset.labels(rows),
        probabilities=np.concatenate(parts).astype(np.float64)[:, columns],
        patients=patients(rows).to_numpy(dtype=str),
        classes=tuple(classes),
        known=rows["patient"].notna().to_numpy(),
    )
