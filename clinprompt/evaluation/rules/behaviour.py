"""A candidate must behave as a served model has to: in a clean process, from its payload alone."""

from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field

from clinprompt.evaluation.behaviour import Behaviour, Trial
from clinprompt.evaluation.estimate import Ends, Estimate
from clinprompt.evaluation.paired import undefined
from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.schema import Fraction


@register("behaviour")
class BehaviourRule(Rule):
    """It loads in a clean process, gives the probabilities that were judged, whatever is in the batch beside an image
    and in whatever order the classes stand, and small photometric changes turn at most `at_most_flipped` of the images
    to another class.

    Attributes:
        images: how many validation images are tried.
        tolerance: up to which probabilities are the same.
    """

    ends: ClassVar[Ends] = "value"
    images: Annotated[int, Field(ge=2, le=1000)] = 24
    at_most_flipped: Fraction = 0.1
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.001

    @property
    def trial(self) -> Trial:
        """The images that it is tried on."""
        return Trial(images=self.images)

    def check(self, context: Context) -> Check:
        """Hold the challenger to it."""
        challenger = context.challenger
        if challenger.probe is None:
            return self._said(context, undefined("nobody tried it out"), "its behaviour was not measured")
        found = challenger.probe(challenger, self.trial)
        problem, flipped = self.problem(found), found.flipped
        if problem is not None and (flipped is None or found.classes is None or found.faults(self.tolerance)):
            return self._said(context, undefined(problem), problem)
        estimate = Estimate(value=flipped, low=flipped, high=flipped)
        if problem is not None:
            return self._said(context, estimate, problem)
        open_ends = f"; not checked: {'; '.join(found.not_checked)}" if found.not_checked else ""
        says = f"it behaves as a served model must, and {_share(found)}, at most {self.at_most_flipped:.1%}{open_ends}"
        return self._said(context, estimate, says, passed=True)

    def still_fails(self, found: Behaviour, again: Callable[[Trial], Behaviour]) -> str | None:
        """The same as at the gate: nothing of it depends on the moment."""
        return self.problem(found)

    def problem(self, found: Behaviour) -> str | None:
        """Why a behaviour does not pass; None where it does. What was not checked counts, but for a GPU, which not
        every machine has."""
        if faults := found.faults(self.tolerance):
            return f"served, it fails: {'; '.join(faults)}"
        measured = {"photometric changes": found.flipped, "another order of the classes": found.classes}
        if unknown := [what for what, value in measured.items() if value is None]:
            return f"how it bears {' and '.join(unknown)} is not known ({'; '.join(found.not_checked)})"
        if found.flipped is not None and found.flipped > self.at_most_flipped:
            return f"{_share(found)}; it must be at most {self.at_most_flipped:.1%}"
        return None

    def explain(self) -> str:
        """What is asked for."""
        return (
            f"in a clean process it gives the judged probabilities of {self.images} validation images from its payload "
            f"alone, alike in any batch and order of classes, and small photometric changes turn at most "
            f"{self.at_most_flipped:.1%} of them to another class"
        )

    def _said(self, context: Context, estimate: Estimate, says: str, *, passed: bool = False) -> Check:
        name, change = context.challenger.name, None if passed else "a model without this fault"
        return Check(
            self.kind, self.kind, name, estimate, self.at_most_flipped, "at_most", passed, says,
            change=change, ends=self.ends,
        )  # fmt: skip


def _share(found: Behaviour) -> str:
    share = 0.0 if found.flipped is None else found.flipped
    return f"small photometric changes turn {share:.1%} of {found.images} images to another class"
