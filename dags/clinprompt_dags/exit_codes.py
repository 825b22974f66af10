"""What a component's exit code means to Airflow: whether to try again, and what a person should do.

The table of codes is that of clinprompt/errors.py, which this environment cannot import.
"""

from dataclasses import dataclass
from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException

BAD_PARAMS = 64
DATA_REJECTED = 65
INPUT_MISSING = 66
INPUT_CORRUPT = 67
SERVICE_DOWN = 69
BUG = 70
GPU_OUT_OF_MEMORY = 72
INTERRUPTED = 75
GATE_REJECTED = 77
KILLED = 137  # 128 + SIGKILL: often the kernel's or the container engine's memory limit

_FINAL = frozenset({BAD_PARAMS, DATA_REJECTED, INPUT_MISSING, INPUT_CORRUPT, BUG, GATE_REJECTED})


@dataclass(frozen=True)
class Meaning:
    """An exit code in words."""

    title: str
    advice: str


_MEANINGS = {
    BAD_PARAMS: Meaning("bad params", "Correct the key that the message names, in params.yaml or in the run's params."),
    DATA_REJECTED: Meaning(
        "data rejected",
        "Read the evidence that the message names, correct the files or the card, and publish a new release.",
    ),
    INPUT_MISSING: Meaning(
        "input missing",
        "Publish the release (python -m workspace release) or put back what the message names.",
    ),
    INPUT_CORRUPT: Meaning(
        "input corrupt",
        "An object in the store is not what its digest says. Delete it there, then clear the task that made it.",
    ),
    SERVICE_DOWN: Meaning("a service is down", "Bring the service that the message names back, then clear the task."),
    BUG: Meaning("bug", "Read the traceback in the task's log and report it; trying again gives the same."),
    GPU_OUT_OF_MEMORY: Meaning(
        "GPU out of memory", "Give the task a larger GPU, or lower the batch size in params.yaml."
    ),
    INTERRUPTED: Meaning(
        "interrupted", "Look for a full disk or a restarted worker; then clear the task, it goes on where it was."
    ),
    GATE_REJECTED: Meaning("gate rejected", "No candidate passed. Read the report; the champion stays."),
    KILLED: Meaning("killed", "Probably out of memory: raise resources.memory in component.yaml, then clear the task."),
}
_UNKNOWN = Meaning("an unknown exit code", "Read the last lines: the environment or the image may be incomplete.")


def meaning(code: int) -> Meaning:
    """What an exit code says; negative codes and those above 128 are signals."""
    found = _MEANINGS.get(code)
    if found is None and (code < 0 or code > 128):
        number = -code if code < 0 else code - 128
        return Meaning(f"killed by signal {number}", _MEANINGS[KILLED if number == 9 else INTERRUPTED].advice)
    return found or _UNKNOWN


class ComponentFailed(AirflowException):
    """A component's process ended with an error.

    Args:
        code: its exit code.
        message: its own sentence, the `message` of its result line; may be empty.
        tail: the last lines of its log.
    """

    def __init__(self, code: int, message: str, tail: list[str] | None = None) -> None:
        self.code = code
        self.message = message
        self.tail = tail or []
        super().__init__(f"exit code {code} ({meaning(code).title}): {message or 'no message'}")


class Final(ComponentFailed):
    """The same inputs would fail the same way again."""


class ServiceDown(ComponentFailed):
    """A server did not answer."""


class OutOfMemory(ComponentFailed):
    """The GPU's memory did not suffice; fewer images at a time may."""


class Interrupted(ComponentFailed):
    """Stopped from outside; the component goes on where it was."""


def failure(code: int, message: str, tail: list[str] | None = None) -> ComponentFailed:
    """The exception for an exit code other than 0."""
    if code in _FINAL:
        return Final(code, message, tail)
    if code == SERVICE_DOWN:
        return ServiceDown(code, message, tail)
    if code == GPU_OUT_OF_MEMORY:
        return OutOfMemory(code, message, tail)
    if code == INTERRUPTED or code < 0 or code > 128:
        return Interrupted(code, message, tail)
    return ComponentFailed(code, message, tail)


def retry_policy() -> ExceptionRetryPolicy:
    """Which failures are tried again; a service that is down, and what is unknown, with the task's growing delay."""
    soon = timedelta(seconds=5)
    return ExceptionRetryPolicy(
        rules=[
            RetryRule(Final, action=RetryAction.FAIL, reason="trying again would give the same"),
            RetryRule(OutOfMemory, retry_delay=soon, reason="again, with twice the micro-batches"),
            RetryRule(Interrupted, retry_delay=soon, reason="interrupted from outside"),
        ]
    )
