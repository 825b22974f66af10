"""Train the cells of a protocol, and test each."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from clinprompt.data.support import support_digest
from clinprompt.errors import NotTrained
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.score import actual_scores, measure_scores
from clinprompt.experiments.budget import Schedule, Trial, best, training_facts
from clinprompt.experiments.journal import Journal, Row
from clinprompt.experiments.pool import Pool
from clinprompt.experiments.protocols import Cell, LeftOut
from clinprompt.experiments.results import TESTS, left_out_row
from clinprompt.experiments.scores import harmonic, rounded, scores
from clinprompt.experiments.stacked import Member, descend_stacked
from clinprompt.files import to_json
from clinprompt.prompting.base import PromptMethod
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.prompting.context import ContextTuning
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section
from clinprompt.training.checkpoint import Checkpoint
from clinprompt.training.fit import fit
from clinprompt.tuned.artifact import softmax
from clinprompt.tuned.session import TuningSession
from clinprompt.tuned.transfer import moved

log = logging.getLogger(__name__)

_AT_ONCE = {True: 4096, False: 64}  # features, or what else `prepare` gives


@dataclass(frozen=True)
class _Trained:
    """A cell's model, the config that it was trained with, and all learning rates that were tried for it."""

    model: PromptMethod
    config: Section
    trials: Sequence[Trial] = ()


@dataclass(frozen=True)
class ProtocolRunner:
    """What all cells share: a dataset, a backbone, a method with its knobs, and how it is trained.

    Attributes:
        checkpoint: keeps the cell in training; its argument names the cell.
        stack: how many cells are trained at once, where the method allows it.
        schedule: how long a training is, and which learning rates are tried.
    """

    session: TuningSession
    method: type[PromptMethod]
    config: Section
    checkpoint: Callable[[str], Checkpoint | None] = lambda cell: None
    stack: int = 1
    schedule: Schedule = field(default_factory=Schedule)

    def build(self, classes: Sequence[str], seed: int, config: Section | None = None) -> PromptMethod:
        """The method for some classes of the card, untrained."""
        return self.session.build(self.method, config or self.config, seed, classes)

    def run(self, cells: Sequence[Cell], journal: Journal) -> list[Row]:
        """Train and test the cells that the journal does not have; returns a row of numbers for each, in order.

        Raises:
            NotTrained: the method can't be built with these knobs for these classes.
        """
        todo = [cell for cell in cells if journal.row(cell.key) is None]
        if todo:
            at_once = self.stack if self._stackable(todo[0]) else 1
            pools = self._pools(todo)
            for start in range(0, len(todo), at_once):
                group, began = todo[start : start + at_once], time.monotonic()
                rows = self._rows(group, pools)
                journal.add(rows, time.monotonic() - began)
                for row in rows:
                    log.info("%s %s", self.method.name, _summary(row))
        return [kept for cell in cells if (kept := journal.row(cell.key)) is not None]

    def _rows(self, cells: Sequence[Cell], pools: dict[str, Pool]) -> list[Row]:
        """A row for each cell; one that can't be trained says why, and does not stop the others."""
        try:
            chosen = self._search(cells, pools)
        except NotTrained as error:
            if len(cells) == 1:
                return [left_out_row(LeftOut(cells[0].key, str(error)))]
            return [row for cell in cells for row in self._rows([cell], pools)]  # whose fault it is shows alone
        return [self._row(cell, one, pools["test"]) for cell, one in zip(cells, chosen, strict=True)]

    def _search(self, cells: Sequence[Cell], pools: dict[str, Pool]) -> list[_Trained]:
        """The cells' models, each trained with the learning rate that validates best.

        Raises:
            NotTrained: a single cell can't be trained with any rate, or one of several cells with one of them.
        """
        descends = self.build(cells[0].classes, 0).descends
        plans = [self.schedule.settings(self.config, cell) if descends else [self.config] for cell in cells]
        if len(plans[0]) == 1:
            models = self._train(cells, pools, [plan[0] for plan in plans])
            return [_Trained(model, plan[0]) for model, plan in zip(models, plans, strict=True)]
        kept: list[_Trained | None] = [None] * len(cells)
        trials: list[list[Trial]] = [[] for _ in cells]
        for configs in zip(*plans, strict=True):
            for n, (trial, model) in enumerate(self._try(cells, pools, configs)):
                trials[n].append(trial)
                if model is not None and best(trials[n]) == len(trials[n]) - 1:
                    kept[n] = _Trained(model, configs[n], trials[n])
        for one, tried in zip(kept, trials, strict=True):
            if one is None:
                raise NotTrained(tried[-1].failed or "no learning rate could be trained")
        return [one for one in kept if one is not None]

    def _try(
        self, cells: Sequence[Cell], pools: dict[str, Pool], configs: Sequence[Section]
    ) -> list[tuple[Trial, PromptMethod | None]]:
        rates = [config.learning_rate for config in configs if isinstance(config, OptimiserSettings)]
        try:
            models = self._train(cells, pools, configs)
        except NotTrained as error:
            if len(cells) > 1:
                raise
            return [(Trial(rates[0], failed=str(error)), None)]
        found: list[tuple[Trial, PromptMethod | None]] = []
        for cell, model, rate in zip(cells, models, rates, strict=True):
            examples = pools["val"].pick(cell.val, cell.classes)
            with self._precision(examples):
                of_classes, _ = predicted(model.eval(), examples)
            found.append((Trial.of(rate, examples.labels.cpu().numpy(), softmax(of_classes)), model))
        return found

    def _pools(self, cells: Sequence[Cell]) -> dict[str, Pool]:
        """All images of the cells, each prepared once."""
        tested = {label for cell in cells for classes in cell.tests.values() for label in classes}
        rows = {"train": [c.train for c in cells], "val": [c.val for c in cells], "test": [self._test_rows(tested)]}
        model = self.build(self.session.dataset.card.class_ids, 0)
        pools = {}
        for split, frames in rows.items():
            frame = pd.concat(frames).drop_duplicates("id").sort_values("path", ignore_index=True)
            augmentation = self.session.training.augmentation if split == "train" else "none"
            pools[split] = Pool.of(self.session.examples(model, frame, augmentation), frame)
        return pools

    def _test_rows(self, classes: Collection[str]) -> pd.DataFrame:
        test = self.session.dataset.split("test")
        return test[test["label"].isin(classes)]

    def _stackable(self, cell: Cell) -> bool:
        run, cls = self.session.run(self.config, 0), self.method
        if self.stack == 1 or run.micro_batches > 1 or getattr(self.config, "keep", "last") != "last":
            return False
        if (
            cls.forward is not ContextTuning.forward
            or cls.start is not PromptMethod.start
            or cls.finish is not PromptMethod.finish
        ):
            return False
        return self.build(cell.classes, 0).averaging() is None

    def _train(self, cells: Sequence[Cell], pools: dict[str, Pool], configs: Sequence[Section]) -> list[PromptMethod]:
        models = [
            self.build(cell.classes, int(cell.key["seed"]), config) for cell, config in zip(cells, configs, strict=True)
        ]
        data = [
            (pools["train"].pick(cell.train, cell.classes), pools["val"].pick(cell.val, cell.classes)) for cell in cells
        ]
        if len(cells) > 1:
            seeds = [int(cell.key["seed"]) for cell in cells]
            stackable = [model for model in models if isinstance(model, ContextTuning)]
            descend_stacked(
                [Member(m, train, val, seed) for m, (train, val), seed in zip(stackable, data, seeds, strict=True)],
                mixed=self.session.is_mixed,
                validates=False,
            )
            return models
        [(train, val)], [model], [cell], [config] = data, models, cells, configs
        checkpoint = self.checkpoint(f"{name_of(cell)} {to_json(config.model_dump(mode='json'))}")
        try:
            run = replace(self.session.run(config, int(cell.key["seed"]), checkpoint), validates=False)
            fit(model, train, val, run)
        except NotTrained:
            if checkpoint is not None:
                checkpoint.delete()
            raise
        if checkpoint is not None:
            checkpoint.delete()
        return models

    def _precision(self, examples: Examples) -> AbstractContextManager[Any]:
        """Pixels are tested as they are trained on, since it takes long; features in float32, as they are served."""
        return nullcontext() if examples.inputs.dim() == 2 else self.session.autocast()

    def _row(self, cell: Cell, one: _Trained, pool: Pool) -> Row:
        model, config = one.model, one.config
        row: Row = {**cell.key, "images": len(cell.train), "support": support_digest(cell.train)}
        row["trainable_parameters"] = model.trained_count()
        row["training"] = training_facts(config, len(cell.train)) if model.descends else {}
        if one.trials:
            row["training"]["tried"] = [trial.to_json() for trial in one.trials]
        for test, classes in cell.tests.items():
            tested = model.eval()
            if classes != cell.classes:
                tested = moved(self.build(classes, int(cell.key["seed"]), config), model.trainable_parameters())
            rows = self._test_rows(classes).sort_values("path", kind="stable")
            examples, score = pool.pick(rows, classes), self.session.dataset.card.score
            actual = None if score is None else actual_scores(rows, score)
            with self._precision(examples):
                row[test] = measured(tested, examples, actual)
        if {"base", "novel"} <= set(row):
            row["harmonic_mean"] = {name: harmonic(row["base"][name], row["novel"][name]) for name in SELECTABLE}
        return row


def measured(model: PromptMethod, examples: Examples, actual: Floats | None = None) -> dict[str, Any]:
    """The metrics of a model's predictions, on how many images, and the class that each was predicted as.

    Args:
        actual: the subjects' scores [n], NaN where one is not known; measured where the model estimates it.
    """
    of_classes, estimates = predicted(model, examples)
    labels, probabilities = examples.labels.cpu().numpy(), softmax(of_classes)
    row: dict[str, Any] = {"images": len(examples), **scores(labels, probabilities)}
    if actual is not None and estimates is not None:
        known = np.isfinite(actual)
        numbers = measure_scores(actual[known], estimates[known], np.ones((1, int(known.sum()))))
        row["score"] = {"images": int(known.sum()), **{name: rounded(float(of[0])) for name, of in numbers.items()}}
    row["predicted"] = probabilities.argmax(1).tolist()
    return row


@torch.no_grad()
def predicted(model: PromptMethod, examples: Examples) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits [n, C], and the estimates [n] of a subject's score where the model tells it; of the images alone."""
    size = _AT_ONCE[examples.inputs.dim() == 2]
    spans = (slice(start, min(start + size, len(examples))) for start in range(0, len(examples), size))
    parts = [model.predict(Batch(part.inputs, part.labels)) for part in map(examples.batch, spans)]
    of_classes, estimates = zip(*parts, strict=True)
    told = None if estimates[0] is None else _array(estimates)
    return _array(of_classes), told


def _array(parts: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).float().cpu().numpy()


def _summary(row: Row) -> str:
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    tests = [f"{name} accuracy {row[name]['accuracy']}" for name in TESTS if name in row]
    return " ".join([f"{key}={row[key]}" for key in ("shots", "fraction", "fold", "seed") if key in row] + tests)


def name_of(cell: Cell) -> str:
    """The cell's key as words."""
    return " ".join(f"{key}={value}" for key, value in cell.key.items())
