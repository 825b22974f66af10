"""The gate's rules, one file per rule. `@register` makes a class a rule; nothing else knows the rules' names.

`gate.rules` of `params.yaml` lists which are held, each with its `kind` and its knobs. A candidate passes when every
rule that applies to it passes: each is tested at the decision's share of `gate.alpha` by itself, and no correction for
several is due, as none of them alone lets a candidate through (Berger 1982, the intersection-union test).
"""

import difflib
import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from clinprompt.errors import BadParams
from clinprompt.evaluation.behaviour import Behaviour, Trial
from clinprompt.evaluation.contenders import Ability, Candidate, Incumbent, Slices
from clinprompt.evaluation.design import Design, Superiority
from clinprompt.evaluation.estimate import Ends, Estimate, Side, end_text, estimate_text, interval_text
from clinprompt.evaluation.intervals import Intervals, estimate_all
from clinprompt.evaluation.outcome import more_patients, reaches
from clinprompt.evaluation.predictions import Predictions
from clinprompt.params import NEGATIVE, Metric
from clinprompt.schema import Section, check, key_errors

Apart = Annotated[float, Field(ge=0, lt=1)]  # by how much two models may or must differ: all of it says nothing


@dataclass(frozen=True)
class Check:
    """What a rule found: passed when the lower end of the interval reaches `bound` or is above it, or the upper end
    stays below it.

    Attributes:
        rule, name: the kind of the rule, and that with what it was applied to, as "floor.auroc".
        says: the finding, as the end of a sentence about the candidate.
        change: what would change the outcome; None where it passed or nothing simple would.
        beside: whom the candidate was compared with, where that is not in the run's files.
        ends: what the estimate's are, by the rule.
    """

    rule: str
    name: str
    candidate: str
    estimate: Estimate
    bound: float
    side: Side
    passed: bool
    says: str
    change: str | None = None
    beside: Literal["champion"] | None = None
    design: Design | Superiority | None = None
    ends: Ends = "bounds"


@dataclass(frozen=True)
class Context:
    """All that a rule may look at.

    Attributes:
        challenger: the candidate that was picked on the validation split; it has predictions.
        candidates: all that are listed, in the order of params.yaml; those that could not be trained, which have no
            predictions, are among them.
        metric: `gate.select_by`.
        alpha: of a one-sided test.
        fewest: patients of each class that a split or slice must have before it counts.
        slices: of the test split.
    """

    challenger: Candidate
    champion: Incumbent | None
    candidates: Sequence[Candidate]
    metric: str
    alpha: float
    fewest: int
    bins: int
    slices: Slices = field(default_factory=Slices)

    @property
    def intervals(self) -> Intervals:
        """Whose ends are one-sided bounds at alpha."""
        return Intervals(round(1 - 2 * self.alpha, 12), self.bins)

    @property
    def test(self) -> Predictions:
        """The challenger's."""
        if self.challenger.test is None:
            raise ValueError(f"{self.challenger.name} has no predictions")
        return self.challenger.test

    def estimate(self, metric: str) -> Estimate:
        """A metric of the challenger; without an interval where a class has too few patients to tell."""
        return self.told(estimate_all(self.test, self.intervals).overall[metric], self.test)

    def told(self, estimate: Estimate, part: Predictions) -> Estimate:
        """The estimate, without its interval where a class has too few patients in what it was measured on."""
        counts = part.patients_per_class
        if estimate.value is None or not counts or min(counts) >= self.fewest:
            return estimate
        lacking = part.classes[counts.index(min(counts))]
        reason = (
            f"{lacking} has {min(counts)} test {part.unit}, which are too few to tell; gate.min_patients_per_class "
            f"asks for {self.fewest}"
        )
        return Estimate(value=estimate.value, low=None, high=None, reason=reason)


class Rule(Section):
    """A rule with its knobs, which are the fields of its class.

    Attributes:
        needs: whom or what it holds the challenger against, which is not there for each; None: it applies to all.
        ends: what those of its estimates are.
    """

    needs: ClassVar[Literal["champion", "zero_shot", "novel_classes"] | None] = None
    ends: ClassVar[Ends] = "bounds"
    kind: str

    @abstractmethod
    def check(self, context: Context) -> Check | None:
        """Hold the challenger to the rule; None where the rule does not apply to it."""

    @abstractmethod
    def explain(self) -> str:
        """What the rule asks for, as a sentence without a full stop."""

    def cannot_judge(self, ability: Ability) -> str | None:
        """Why no answer of a candidate would let it pass, so that it can't be the challenger; None where it can.

        Whatever needs a look at answers is left to `check`: the challenger is picked before the test split is seen.
        """
        return None

    @property
    def trial(self) -> Trial:
        """What the challenger must be tried out for, as it would be served; by default nothing."""
        return Trial()

    def still_fails(self, found: Behaviour, again: Callable[[Trial], Behaviour]) -> str | None:
        """Why a choice that was tried out anew, before its promotion, does not pass; None where it does.

        Args:
            again: tries it out once more.
        """
        return None

    def judged(
        self, context: Context, of: str, what: str, estimate: Estimate, bound: float, side: Side, good: str,
        bad: str = "", on: Predictions | None = None, **more: Any,
    ) -> Check:  # fmt: skip
        """The outcome that follows from an estimate.

        Args:
            of: what the rule was applied to, for the check's name.
            what: the same in words.
            good, bad: the ends of the sentence that says that it passed, or not.
            on: whose patients the estimate rests on; None: on those of the test split.
            more: other fields of the check.
        """
        ok = reaches(estimate, bound, side)
        if ok:
            says = f"its {what} is {self._text(estimate)}, {good}"
        elif estimate.low is None:
            says = f"{what} has no interval: {estimate.reason}"
        else:
            must = f"its {end_text(side, self.ends)} must be {side.replace('_', ' ')} {bound:g}"
            says = f"{what} is {self._text(estimate)}; {must}{bad}"
        change = None if ok else more_patients(estimate, bound, side, context.test if on is None else on)
        name = f"{self.kind}.{of}" if of else self.kind
        facts: dict[str, Any] = {"change": change, "ends": self.ends, **more}
        return Check(self.kind, name, context.challenger.name, estimate, bound, side, ok, says, **facts)

    def _text(self, estimate: Estimate) -> str:
        if self.ends == "value":
            return interval_text(estimate.value, None, None)
        return estimate_text(estimate)


class MetricFloor(Rule):
    """A rule by which the lower end of a metric's interval must be at least `at_least`."""

    metric: Metric
    at_least: float

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        lowest = -1 if self.metric in NEGATIVE else 0
        if not lowest <= self.at_least <= 1:
            raise key_errors([f"at_least: must be from {lowest} to 1, found {self.at_least}"])
        return self


def trial_of(rules: Iterable[Rule]) -> Trial:
    """What a challenger is tried out for by all rules together."""
    return reduce(or_, (rule.trial for rule in rules), Trial())


_ONE_OF_EACH: tuple[tuple[str | None, str, str], ...] = (
    (
        "champion",
        "no rule holds a challenger against the champion, which any would replace",
        "kind: not_worse_than_champion, margin: 0.02",
    ),
    (
        None,
        "no rule applies where there is no champion, so that any could be the first",
        "kind: floor, metric: balanced_accuracy, at_least: 0.5",
    ),
)
R = TypeVar("R", bound=type[Rule])
_RULES: dict[str, type[Rule]] = {}


def register(kind: str) -> Callable[[R], R]:
    """Make the decorated class the rule `kind`, which must be the name of its file.

    Raises:
        ValueError: the name is another one.
    """

    def decorate(cls: R) -> R:
        if cls.__module__ != f"{__name__}.{kind}":
            raise ValueError(f"the rule {kind!r} must be in {__name__}.{kind}, found in {cls.__module__}")
        _RULES[kind] = cls
        return cls

    return decorate


def kinds() -> list[str]:
    """The rules that exist, sorted: the files of this folder."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")


def parse_rules(listed: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """The rules of `gate.rules`, checked.

    Raises:
        BadParams: a kind does not exist, a knob is unknown, missing or wrong, or a rule is lacking without which any
            candidate could become the champion.
    """
    rules = []
    for place, entry in enumerate(listed):
        kind, where = entry.get("kind"), f"gate.rules.{place}"
        if kind not in kinds():
            close = difflib.get_close_matches(str(kind), kinds(), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise BadParams(f"params.yaml: {where}.kind: there is no rule {kind!r}; {hint}known: {', '.join(kinds())}.")
        importlib.import_module(f"{__name__}.{kind}")
        rules.append(check(_RULES[kind], dict(entry), "params.yaml", where))
    for needs, problem, example in _ONE_OF_EACH:
        if not any(rule.needs == needs for rule in rules):
            raise BadParams(f"params.yaml: gate.rules: {problem}; add for example {{{example}}}.")
    return rules
