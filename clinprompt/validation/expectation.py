"""One expectation on the table that is validated, as plain data."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class TableExpectation:
    """One expectation on the table.

    Attributes:
        name: the check's name in verdict.json.
        type, kwargs: the class in `great_expectations.expectations` and its arguments.
        about: what is expected, as a clause that follows "Expected that".
        where: only rows with these values in these columns count.
        shows: the column that explains an offending row; None: the column that is checked.
        flags: whether the offending images are listed one by one in verdict.json, and shown.
        key: file and key where a user wrote it, for error messages; None for the built-in ones.
    """

    name: str
    type: str
    about: str
    severity: Literal["critical", "warning"] = "critical"
    kwargs: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    shows: str | None = None
    flags: bool = True
    key: str | None = None
