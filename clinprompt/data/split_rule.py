"""The part of a dataset's card that says how its images are shared out to train, val and test."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clinprompt.schema import Fraction, Section

Seed = Annotated[int, Field(ge=0)]


class Fractions(Section):
    """How the images are shared out by a stratified split."""

    train: Fraction = 0.7
    val: Fraction = 0.15
    test: Fraction = 0.15

    @model_validator(mode="after")
    def _sum_to_one(self) -> "Fractions":
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train, val and test must sum to 1, found {self.train + self.val + self.test:g}")
        if min(self.train, self.val, self.test) == 0:
            raise ValueError("train, val and test must all be above 0")
        return self


class SplitRule(Section):
    """The publisher's split, or a stratified one grouped by patient; `val_from_train` makes a missing val split.

    With `folds`, the patients outside the test split are dealt into so many parts: `fold` validates, the others train.
    """

    rule: Literal["given", "stratified"] = "given"
    fractions: Fractions = Fractions()
    seed: Seed = 0
    val_from_train: Annotated[float, Field(gt=0, lt=1)] | None = None
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0

    @property
    def shares_out(self) -> bool:
        """Whether the rule makes a split, instead of taking all as they are given."""
        return self.rule == "stratified" or self.val_from_train is not None or self.folds is not None

    @model_validator(mode="after")
    def _fold_is_one_of_the_folds(self) -> "SplitRule":
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold must be below folds, found fold {self.fold} of folds {self.folds}")
        if self.folds is not None and self.val_from_train is not None:
            raise ValueError("val_from_train and folds both make the val split; leave one out")
        return self

    @model_validator(mode="after")
    def _single_validation_source(self) -> "SplitRule":
        if self.rule == "stratified" and self.val_from_train is not None:
            raise ValueError("val_from_train goes with rule given; with rule stratified set fractions.val")
        return self
