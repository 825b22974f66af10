"""Published results of other groups, read from `published.yaml`."""

from pathlib import Path
from typing import Any

from clinprompt.schema import Section, check, read_yaml

FILE = Path(__file__).with_name("published.yaml")
Row = dict[str, float]


class Published(Section):
    """One source. `few_shot` and `base_to_novel` are averages over `datasets`, by method; `full` has each dataset's.

    With a `language_model`, its numbers can't be compared with those of another one.
    """

    name: str
    source: str
    datasets: list[str]
    metric: str = "accuracy"
    language_model: str | None = None
    few_shot: dict[str, dict[int, float]] = {}
    base_to_novel: dict[str, Row] = {}
    full: dict[str, dict[str, Row]] = {}

    def averages(self, protocol: str) -> dict[str, Row]:
        """Method -> column -> percent, of a protocol that has published averages."""
        tables: dict[str, Any] = {"few_shot": self.few_shot, "base_to_novel": self.base_to_novel}
        return {m: {str(k): float(v) for k, v in row.items()} for m, row in tables.get(protocol, {}).items()}


class _PublishedFile(Section):
    sources: list[Published]


def published() -> list[Published]:
    """All sources, in the file's order."""
    return check(_PublishedFile, {"sources": read_yaml(FILE)}, str(FILE)).sources
