"""The results of one protocol: mean and deviation over the seeds for each table cell, or why there is no number."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinprompt.experiments.results import grouped, read_results
from clinprompt.experiments.scores import deviation, harmonic, mean

NOT_RUN = "not run"


@dataclass(frozen=True)
class Value:
    """Percent: the mean over the seeds, and their sample standard deviation (None for a single seed)."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Missing:
    """Why there is no number."""

    reason: str


TableCell = Value | Missing


@dataclass(frozen=True)
class ResultsTable:
    """Results by (dataset, method), and which datasets and methods a table shows."""

    protocol: str
    datasets: list[str]
    methods: list[str]
    results: dict[tuple[str, str], dict[str, Any]] = field(repr=False)

    @classmethod
    def read(
        cls, folders: Sequence[Path], protocol: str, datasets: Sequence[str], methods: Sequence[str], only: bool
    ) -> "ResultsTable":
        """Read the result files below some folders of runs.

        Args:
            folders: where two have a result of the same dataset and method, the first one's is taken.
            only: show the given datasets and methods; else also others that have results.
        """
        results = {(result["dataset"], result["method"]): result for result in read_results(folders, protocol)}
        if only:
            return cls(protocol, list(datasets), list(methods), results)
        extended = [
            list(dict.fromkeys([*requested, *(key[i] for key in results)]))
            for i, requested in enumerate((datasets, methods))
        ]
        return cls(protocol, extended[0], extended[1], results)

    @property
    def groups(self) -> list[str]:
        """The numbers of shots or the shares that any result has, ascending; ["all"] where there is no such thing."""
        names = {name for result in self.shown() for name in grouped(result["cells"])}
        return sorted(names, key=lambda name: (name == "all", 0.0 if name == "all" else float(name)))

    @property
    def seeds(self) -> list[int]:
        """The seeds of all cells."""
        return sorted({row["seed"] for result in self.shown() for row in result["cells"]})

    def shown(self) -> list[dict[str, Any]]:
        """The results of the datasets and methods that are shown."""
        pairs = [(dataset, method) for dataset in self.datasets for method in self.methods]
        return [self.results[pair] for pair in pairs if pair in self.results]

    def value(self, dataset: str, method: str, group: str, test: str, metric: str) -> TableCell:
        """Of one dataset."""
        by_seed = self._by_seed(dataset, method, group, test, metric)
        return by_seed if isinstance(by_seed, Missing) else summary(list(by_seed.values()))

    def average(self, method: str, group: str, test: str, metric: str) -> TableCell:
        """Of the mean over all datasets shown: for each seed, then over the seeds."""
        columns = [self._by_seed(dataset, method, group, test, metric) for dataset in self.datasets]
        lacking = [d for d, column in zip(self.datasets, columns, strict=True) if isinstance(column, Missing)]
        if lacking:
            return Missing(f"needs all datasets; missing: {', '.join(lacking)}")
        known = [column for column in columns if not isinstance(column, Missing)]
        if any(set(column) != set(known[0]) for column in known):
            return Missing("the datasets' seeds differ")
        return summary([mean([column[seed] for column in known]) for seed in known[0]])

    def harmonic_of_means(self, method: str, metric: str) -> TableCell:
        """The harmonic mean of the averages over datasets and seeds of base and novel; it has no deviation."""
        averages = [self.average(method, "all", test, metric) for test in ("base", "novel")]
        for average in averages:
            if isinstance(average, Missing):
                return average
        base, novel = (average.mean for average in averages if isinstance(average, Value))
        percent = harmonic(base, novel)
        return Missing("not defined") if percent is None else Value(percent, None)

    def _by_seed(self, dataset: str, method: str, group: str, test: str, metric: str) -> dict[int, float] | Missing:
        """In percent; where a seed has several folds, their mean."""
        result = self.results.get((dataset, method))
        if result is None:
            return Missing(NOT_RUN)
        if result["left_out"]:
            return Missing(result["left_out"])
        rows = grouped(result["cells"]).get(group, [])
        for row in rows:
            if "left_out" in row:
                return Missing(row["left_out"])
        values: dict[int, list[float | None]] = {}
        for row in rows:
            values.setdefault(row["seed"], []).append(row[test].get(metric))
        if not values:
            return Missing(NOT_RUN)
        means = {seed: mean(of_folds) for seed, of_folds in values.items()}
        known = {seed: 100 * value for seed, value in means.items() if value is not None}
        return known if len(known) == len(values) else Missing("not defined on this test")


def summary(values: Sequence[float | None]) -> TableCell:
    """Mean and deviation of a value per seed."""
    average = mean(values)
    return Missing("not defined on this test") if average is None else Value(average, deviation(values))
