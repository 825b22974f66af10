"""One call of the components' environment: what it is told, and what it answered."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.contract.variables import TASK
from clinprompt_dags.failures import failure

TAIL = 20  # lines of a log that a failure is reported with


@dataclass(frozen=True)
class Call:
    """A call of `python ARGUMENTS` with a task.

    Args:
        plain: variables that anyone may read.
        private: variables that hold secrets.
    """

    arguments: list[str]
    task: dict[str, Any]
    plain: dict[str, str] = field(default_factory=dict)
    private: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for two tries of the same work."""
        same = {key: value for key, value in self.task.items() if key != "airflow"}
        variables = {key: value for key, value in self.plain.items() if key != TASK}
        text = json.dumps([self.arguments, same, variables], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_result(lines: Iterable[str]) -> dict[str, Any] | None:
    """The JSON object that a component's standard output ends with; None where there is none.

    It is one line, or several when it was written for people to read.
    """
    written = [line for line in lines if line.strip()]
    starts = [index for index, line in enumerate(written) if line.startswith("{")]
    if not starts:
        return None
    try:
        value = json.loads("\n".join(written[starts[-1] :]))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def conclude(code: int, result: dict[str, Any] | None, tail: Iterable[str]) -> dict[str, Any]:
    """The result of a call that succeeded.

    Raises:
        ComponentFailed: it did not, or it answered nothing.
    """
    lines = list(tail)[-TAIL:]
    if code != 0:
        raise failure(code, str((result or {}).get("message", "")), lines)
    if result is None:
        raise failure(ExitCode.BUG, "the component ended well but printed no result line of JSON.", lines)
    return result
