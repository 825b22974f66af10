"""What a candidate is called: in folders, tables, decisions and tasks."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class CandidateId:
    """A candidate of params.yaml, trained with one seed.

    Attributes:
        name: as it stands under `candidates`: a method, or a method with knobs of its own.
    """

    name: str
    seed: int

    def __str__(self) -> str:
        """The name of its folder, as "coop-1"."""
        return f"{self.name}-{self.seed}"

    @classmethod
    def parse(cls, text: str) -> "CandidateId":
        """The inverse of `str`.

        Raises:
            ValueError: the text ends with no seed.
        """
        name, separator, seed = text.rpartition("-")
        if not separator or not name or not (seed.isascii() and seed.isdecimal()):
            raise ValueError(f"expected NAME-SEED, as in coop-1, found {text!r}")
        return cls(name, int(seed))
