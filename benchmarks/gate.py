"""`python -m benchmarks.gate`: how often the gate errs, by simulation.

Patients of four classes have four images each (unless said otherwise); a patient's images are alike (a Gaussian latent
that correlates by `WITHIN`). Four questions, with the share over simulated test sets and its Monte Carlo error:

- acceptance: does `not_worse_than_champion` let equal, better and worse models through, and an equal one at half of
  alpha, as the first decision on a test split has it? Does it pass for better, as `better_than_champion` and
  `better_than_zero_shot` ask? The two models' errors on an image correlate by about 0.5 or 0.9: the challenger repeats
  the champion's answer on that share of the images.
- coverage: does the 95 % interval hold the true value?
- floors: does a model that is exactly at a floor pass it?
- families: how often is any of many challengers, one after another on the same test set, let through though it is worse
  than its champion by the margin? With the whole alpha for each, and with what `gate.budget` leaves it.

The first three beside what an unstratified percentile bootstrap of patients would give.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from clinprompt.evaluation.budget import share
from clinprompt.evaluation.intervals import PROPORTION, estimate
from clinprompt.evaluation.jackknife import Jackknife, leave_out
from clinprompt.evaluation.metrics import one_vs_rest_auroc

WITHIN = 0.3  # correlation of a patient's images, on the latent scale
MARGIN, ACCURACY, ALPHA = 0.02, 0.75, 0.025
RESAMPLES, BATCH = 400, 500
Array = np.ndarray


@dataclass(frozen=True)
class Share:
    """How often something happened in `of` simulated test sets."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of

    @property
    def error(self) -> float:
        """Its Monte Carlo standard error; of a share of 0 or 1 that of half a case."""
        share = min(max(self.value, 0.5 / self.of), 1 - 0.5 / self.of)
        return math.sqrt(share * (1 - share) / self.of)

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class TestSet:
    """Patients of classes, `images` each, and the balanced accuracy as a weighting of patients."""

    sizes: tuple[int, ...]
    images: int = 4

    @property
    def labels(self) -> Array:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def plan(self) -> tuple[Jackknife, Array]:
        """Which patients are left out, and what each counts [G, P] in the balanced accuracy meanwhile."""
        labels, classes = self.labels, len(self.sizes)
        plan = leave_out(np.array([f"{i:05d}" for i in range(len(labels))]), labels, classes)
        weights = np.concatenate(list(plan.weights()))
        member = np.eye(classes)[labels]
        return plan, weights / (weights @ member)[:, labels] / classes

    def hits(self, rng: np.random.Generator, accuracy: Array) -> Array:
        """Of each patient the images [P, images] that a model with these accuracies by class has right."""
        return self.latent(rng) < ndtri(accuracy)[self.labels][:, None]

    def latent(self, rng: np.random.Generator) -> Array:
        shape = (len(self.labels), self.images)
        return math.sqrt(WITHIN) * rng.normal(size=(shape[0], 1)) + math.sqrt(1 - WITHIN) * rng.normal(size=shape)

    def mean(self, values: Array) -> Array:
        """Of values [P, S] of patients: the means [S] of the classes' means."""
        return np.mean([values[self.labels == c].mean(axis=0) for c in range(len(self.sizes))], axis=0)

    def resamples(self) -> Array:
        """What each patient counts [R, P] in resamples that draw patients, whatever their class."""
        labels, rng = self.labels, np.random.default_rng(0)
        member = np.eye(len(self.sizes))[labels]
        counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=RESAMPLES)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nan_to_num(counts / (counts @ member)[:, labels] / len(self.sizes))


def batches(of: int) -> Iterator[int]:
    """The sizes of the parts in which test sets are simulated."""
    yield from (min(BATCH, of - start) for start in range(0, of, BATCH))


def pair(rng: np.random.Generator, cases: TestSet, gain: float, repeats: float) -> Array:
    """Per patient, the challenger's share of right images minus the champion's [P]."""
    champion = cases.hits(rng, np.full(len(cases.sizes), ACCURACY))
    own = cases.hits(rng, np.full(len(cases.sizes), ACCURACY + gain / (1 - repeats)))
    challenger = np.where(rng.random(own.shape) < repeats, champion, own)
    return challenger.mean(axis=1) - champion.mean(axis=1)


def acceptance(
    patients: int, gain: float, repeats: float, of: int, seed: int = 0, alpha: float = ALPHA, bound: float = -MARGIN
) -> tuple[Share, Share]:
    """How often the lower end of challenger minus champion is above a bound: the gate's interval's, and percentiles'.

    Args:
        bound: that of `not_worse_than_champion`; 0 is that of `better_than_champion`.
    """
    cases, rng = TestSet((patients // 4,) * 4), np.random.default_rng(seed)
    (plan, weights), drawn = cases.plan(), cases.resamples()
    passed = old = 0
    for size in batches(of):
        values = np.stack([pair(rng, cases, gain, repeats) for _ in range(size)], axis=1)
        for value, without in zip(cases.mean(values), (weights @ values).T, strict=True):
            spread = plan.spread(without, np.ones(4))
            found = estimate(float(value), spread, 1 - 2 * alpha, why="", bounds=None, count=patients)
            passed += found.low is not None and found.low > bound
        old += int((np.quantile(drawn @ values, alpha, axis=0) > bound).sum())
    return Share(passed, of), Share(old, of)


def family(
    patients: int, decisions: int, spending: str, of: int, *, good: bool = False, repeats: float = 0.5, seed: int = 0
) -> list[int]:
    """Of each simulated test set the decision that first let through a challenger that is worse than its champion by
    the margin; 0: none of them did.

    Args:
        good: every second challenger is better by half the margin instead, and takes the champion's place if it passes.
    """
    cases, rng = TestSet((patients // 4,) * 4), np.random.default_rng(seed)
    plan, weights = cases.plan()
    ones, erred = np.ones(4), []
    for _ in range(of):
        true, alpha, accepted = ACCURACY, 0.0, False
        champion = cases.hits(rng, all_at(true))
        for number in range(1, decisions + 1):
            bad = not good or number % 2 == 0
            gain = -MARGIN if bad else MARGIN / 2
            own = cases.hits(rng, all_at(true + gain / (1 - repeats)))
            challenger = np.where(rng.random(own.shape) < repeats, champion, own)
            alpha = ALPHA if spending == "none" else share(ALPHA, number, alpha if accepted else 0.0)
            values = challenger.mean(axis=1) - champion.mean(axis=1)
            spread = plan.spread(weights @ values, ones)
            value = float(cases.mean(values[:, None])[0])
            found = estimate(value, spread, 1 - 2 * alpha, why="", bounds=None, count=patients)
            accepted = found.low is not None and found.low >= -MARGIN
            if accepted and bad:
                erred.append(number)
                break
            if accepted:
                champion, true = challenger, true + gain
        else:
            erred.append(0)
    return erred


def within(erred: list[int], decisions: int) -> Share:
    """In how many families one of the first decisions erred."""
    return Share(sum(0 < number <= decisions for number in erred), len(erred))


def accuracy_ends(
    cases: TestSet, accuracy: Array, of: int, seed: int = 0
) -> Iterator[tuple[float, float, float, float]]:
    """The ends of intervals of the balanced accuracy: the gate's, and percentiles."""
    rng = np.random.default_rng(seed)
    (plan, weights), drawn = cases.plan(), cases.resamples()
    count = min(sum(cases.sizes), len(cases.sizes) * min(cases.sizes))
    for size in batches(of):
        values = np.stack([cases.hits(rng, accuracy).mean(axis=1) for _ in range(size)], axis=1)
        old = np.quantile(drawn @ values, [0.025, 0.975], axis=0).T
        for value, without, ends in zip(cases.mean(values), (weights @ values).T, old, strict=True):
            spread = plan.spread(without, np.ones(len(cases.sizes)))
            found = estimate(float(value), spread, 0.95, why="", bounds=PROPORTION, count=count, mean=True)
            yield float(found.low or 0), float(found.high or 0), float(ends[0]), float(ends[1])


def auroc_ends(cases: TestSet, area: float, of: int, seed: int = 0) -> Iterator[tuple[float, float, float, float]]:
    """The same of the AUROC of two classes whose scores are normal, with this true area."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(cases.labels, cases.images)
    patients = np.repeat(np.arange(len(cases.labels)), cases.images)
    plan = leave_out(np.array([f"{i:05d}" for i in patients]), labels, 2)
    chance = np.full(len(cases.labels), 1 / len(cases.labels))
    drawn = np.random.default_rng(0).multinomial(len(chance), chance, size=RESAMPLES // 2)[:, patients]
    weights = np.concatenate([np.ones((1, len(labels))), *plan.weights()])
    every = np.concatenate([weights, drawn.astype(float)])
    for _ in range(of):
        scores = cases.latent(rng).ravel() + math.sqrt(2) * ndtri(area) * labels
        odds = 1 / (1 + np.exp(-scores))
        inside = 1 - labels  # the column is of class 0, so that this is its label
        with np.errstate(invalid="ignore", divide="ignore"):
            values = one_vs_rest_auroc(inside, odds[:, None], every)[:, 0]
        spread = plan.spread(values[1 : len(weights)], np.ones(2))
        count = len(cases.sizes) * min(cases.sizes)
        found = estimate(float(values[0]), spread, 0.95, why="", bounds=PROPORTION, count=count)
        old = np.nanquantile(values[len(weights) :], [0.025, 0.975])
        yield float(found.low or 0), float(found.high or 0), float(old[0]), float(old[1])


def held(ends: Iterator[tuple[float, float, float, float]], truth: float) -> tuple[Share, Share]:
    """How often intervals hold the truth."""
    found = np.array(list(ends))
    inside = [(found[:, k] <= truth) & (truth <= found[:, k + 1]) for k in (0, 2)]
    return Share(int(inside[0].sum()), len(found)), Share(int(inside[1].sum()), len(found))


def reached(ends: Iterator[tuple[float, float, float, float]], floor: float) -> tuple[Share, Share]:
    """How often the lower end reaches a floor."""
    found = np.array(list(ends))
    return Share(int((found[:, 0] >= floor).sum()), len(found)), Share(int((found[:, 2] >= floor).sum()), len(found))


def all_at(accuracy: float, classes: int = 4) -> Array:
    """One accuracy for all classes."""
    return np.full(classes, accuracy)


COVERAGE: dict[str, Callable[[int], tuple[Share, Share]]] = {
    "18 patients a class, balanced accuracy 0.75": lambda of: held(
        accuracy_ends(TestSet((18,) * 4), all_at(0.75), of), 0.75
    ),
    "the same, one image a patient": lambda of: held(accuracy_ends(TestSet((18,) * 4, 1), all_at(0.75), of), 0.75),
    "the same, balanced accuracy 0.95": lambda of: held(accuracy_ends(TestSet((18,) * 4), all_at(0.95), of), 0.95),
    "a class of 4 patients, three of 30": lambda of: held(
        accuracy_ends(TestSet((4, 30, 30, 30)), all_at(0.75), of), 0.75
    ),
    "the same, one image a patient ": lambda of: held(
        accuracy_ends(TestSet((4, 30, 30, 30), 1), all_at(0.75), of), 0.75
    ),
    "the same, that class at 0.5, the others at 0.85": lambda of: held(
        accuracy_ends(TestSet((4, 30, 30, 30)), np.array([0.5, 0.85, 0.85, 0.85]), of), 0.7625
    ),
    "AUROC 0.98, 18 patients a class": lambda of: held(auroc_ends(TestSet((18, 18)), 0.98, of), 0.98),
    "the same, AUROC 0.99": lambda of: held(auroc_ends(TestSet((18, 18)), 0.99, of), 0.99),
    "AUROC 0.98, one image a patient": lambda of: held(auroc_ends(TestSet((18, 18), 1), 0.98, of), 0.98),
}
FLOORS: dict[str, Callable[[int], tuple[Share, Share]]] = {
    "balanced accuracy 0.75, 18 patients a class": lambda of: reached(
        accuracy_ends(TestSet((18,) * 4), all_at(0.75), of), 0.75
    ),
    "balanced accuracy 0.95, 18 patients a class": lambda of: reached(
        accuracy_ends(TestSet((18,) * 4), all_at(0.95), of), 0.95
    ),
    "balanced accuracy 0.95, a class of 10, three of 30": lambda of: reached(
        accuracy_ends(TestSet((10, 30, 30, 30)), all_at(0.95), of), 0.95
    ),
    "balanced accuracy 0.95, a class of 4, three of 30, were it let count": lambda of: reached(
        accuracy_ends(TestSet((4, 30, 30, 30)), all_at(0.95), of), 0.95
    ),
    "AUROC 0.95, 18 patients a class": lambda of: reached(auroc_ends(TestSet((18, 18)), 0.95, of), 0.95),
}
FAMILY = (1, 2, 5, 20)
GAINS = {"better by the margin": MARGIN, "equal": 0.0, "worse by the margin": -MARGIN, "worse by twice": -2 * MARGIN}


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", type=int, default=4000, help="simulated test sets of each row")
    of = parser.parse_args().of
    print(f"Acceptance by not_worse_than_champion, margin {MARGIN}, alpha 0.025; in brackets with percentiles\n")
    first = share(ALPHA, 1)
    columns = [*GAINS, f"equal, at alpha {first:g}", "equal, but shown better"]
    print(f"| patients | correlation | {' | '.join(columns)} |\n| --- | --- |{' --- |' * len(columns)}")
    for patients in (72, 240, 1000):
        for repeats in (0.5, 0.9):
            found = [acceptance(patients, gain, repeats, of) for gain in GAINS.values()]
            found.append(acceptance(patients, 0.0, repeats, of, alpha=first))
            found.append(acceptance(patients, 0.0, repeats, of, bound=0.0))
            cells = [f"{new} ({old.value:.3f})" for new, old in found]
            print(f"| {patients} | {repeats} | {' | '.join(cells)} |", flush=True)
    print(f"\nA challenger that is worse by the margin passes at least once (aim: {ALPHA})\n")
    print(f"| patients | challengers | spending | {' | '.join(f'{k} decisions' for k in FAMILY)} |")
    print(f"| --- | --- | --- |{' --- |' * len(FAMILY)}")
    for patients in (72, 240):
        for good, name in ((False, "all worse"), (True, "every second better by half the margin")):
            for spending in ("none", "fallback"):
                erred = family(patients, max(FAMILY), spending, of, good=good)
                cells = [str(within(erred, decisions)) for decisions in FAMILY]
                print(f"| {patients} | {name} | {spending} | {' | '.join(cells)} |", flush=True)
    print("\nA challenger that is better by the margin passes, 240 patients, correlation 0.5, after rejections alone\n")
    print(f"| decision | {' | '.join(map(str, FAMILY))} |\n| --- |{' --- |' * len(FAMILY)}")
    cells = [str(acceptance(240, MARGIN, 0.5, of, alpha=share(ALPHA, number))[0]) for number in FAMILY]
    print(f"| passes | {' | '.join(cells)} |", flush=True)
    for title, cases in (("Coverage of 95 % intervals", COVERAGE), ("Passes at a floor (aim: 0.025)", FLOORS)):
        print(f"\n{title}\n\n| case | gate | percentiles |\n| --- | --- | --- |")
        for name, case in cases.items():
            new, old = case(of)
            print(f"| {name.strip()} | {new} | {old} |", flush=True)


if __name__ == "__main__":
    main()
