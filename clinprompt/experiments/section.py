"""The section `protocols` of params.yaml: what is run, on which datasets, with which methods and seeds."""

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from clinprompt.experiments.protocols import (
    PROTOCOLS,
    BaseToNovel,
    CrossValidation,
    FewShot,
    Full,
    LabelEfficiency,
)
from clinprompt.schema import Name, Section, check


class Transfer(Section):
    """Tuned candidates of the datasets `sources`, tested on the test splits of `targets`."""

    sources: list[Name]
    targets: list[Name]


class Protocols(Section):
    """The whole section `protocols`.

    Attributes:
        datasets: must be among the params' `datasets` too.
        names: which protocols are run, of every dataset with every method.
        stack: how many cells are trained at once, for methods that allow it.
    """

    datasets: list[Name]
    methods: list[Name]
    names: list[Name]
    seeds: list[NonNegativeInt] = Field(min_length=1)
    stack: PositiveInt
    full: Full
    few_shot: FewShot
    base_to_novel: BaseToNovel
    label_efficiency: LabelEfficiency
    cross_validation: CrossValidation
    transfer: Transfer

    @model_validator(mode="after")
    def _known_names(self) -> "Protocols":
        for name in self.names:
            if name not in PROTOCOLS:
                raise ValueError(f"names: there is no protocol {name!r}; known: {', '.join(PROTOCOLS)}")
        return self


def check_protocols(value: Any) -> Protocols:
    """The section `protocols` of params.yaml, checked.

    Raises:
        BadParams: a key is unknown, missing or wrong; it is named by its path.
    """
    return check(Protocols, value, "params.yaml", "protocols")
