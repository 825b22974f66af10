"""The cells that are done, kept so that an interrupted experiment goes on with the next one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.experiments.protocols import Key
from clinprompt.files import read_json, write_json

Row = dict[str, Any]


@dataclass
class Journal:
    """A file of finished cells with their seconds.

    Attributes:
        identity: a digest of all that the cells depend on; a file with another one is passed over.
    """

    path: Path
    identity: str
    rows: list[Row] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            found = read_json(self.path)
        except (InputMissing, InputCorrupt):
            return
        if isinstance(found, dict) and found.get("identity") == self.identity:
            self.rows, self.seconds = found["rows"], found["seconds"]

    def row(self, key: Key) -> Row | None:
        """What was measured in the cell with this key."""
        return next((row for row in self.rows if key.items() <= row.items()), None)

    def add(self, rows: list[Row], seconds: float) -> None:
        """Keep some cells that were trained together, and how long they took."""
        self.rows += rows
        self.seconds += [round(seconds / len(rows), 3)] * len(rows)
        write_json(self.path, {"identity": self.identity, "rows": self.rows, "seconds": self.seconds})

    def delete(self) -> None:
        """Remove the file; it has served when the result is written."""
        self.path.unlink(missing_ok=True)
