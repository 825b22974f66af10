"""What a component's exit code means to Airflow: whether to try again, and what a person should do."""

from dataclasses import dataclass
from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException

from clinprompt.contract.exit_codes import ExitCode

KILLED = 137  # 128 + SIGKILL: often the kernel's or the container engine's memory limit

# What the same inputs would give again.
_FINAL = frozenset(
    {ExitCode.BAD_PARAMS, ExitCode.DATA_REJECTED, ExitCode.INPUT_MISSING, ExitCode.INPUT_CORRUPT}
    | {ExitCode.BUG, ExitCode.GATE_REJECTED}
)


@dataclass(frozen=True)
class Meaning:
    """An exit code in words."""

    title: str
    advice: str


_MEANINGS: dict[int, Meaning] = {
    ExitCode.BAD_PARAMS: Meaning(
        "bad params", "Correct the key that the message names, in params.yaml or in the run's params."
    ),
    ExitCode.DATA_REJECTED: Meaning(
        "data rejected",
        "Read the evidence that the message names, correct the files or the card, and publish a new release.",
    ),
    ExitCode.INPUT_MISSING: Meaning(
        "input missing",
        "Publish the release (python -m workspace release) or put back what the message names.",
    ),
    ExitCode.INPUT_CORRUPT: Meaning(
        "input corrupt",
        "An object in the store is not what its digest says. Delete it there, then clear the task that made it.",
    ),
    ExitCode.SERVICE_DOWN: Meaning(
        "a service is down", "Bring the service that the message names back, then clear the task."
    ),
    ExitCode.BUG: Meaning("bug", "Read the traceback in the task's log and report it; trying again gives the same."),
    ExitCode.GPU_OUT_OF_MEMORY: Meaning(
        "GPU out of memory", "Give the task a larger GPU, or lower the batch size in params.yaml."
    ),
    ExitCode.INTERRUPTED: Meaning(
        "interrupted",
        "Look for a full disk or a restarted worker; then clear the task: describe and cache go on where they were.",
    ),
    ExitCode.GATE_REJECTED: Meaning("gate rejected", "No candidate passed. Read the report; the champion stays."),
    KILLED: Meaning("killed", "Probably out of memory: raise resources.memory in component.yaml, then clear the task."),
}
_UNKNOWN = Meaning("an unknown exit code", "Read the last lines: the environment or the image may be incomplete.")


def meaning(code: int) -> Meaning:
    """Title and advice of an exit code; negative codes and those above 128 are signals."""
    listed = _MEANINGS.get(code)
    if listed is None and (code < 0 or code > 128):
        number = -code if code < 0 else code - 128
        return Meaning(f"killed by signal {number}", _MEANINGS[KILLED if number == 9 else ExitCode.INTERRUPTED].advice)
    return listed or _UNKNOWN


class ComponentFailed(AirflowException):
    """A component's process ended with an error.

    Args:
        code: its exit code.
        message: its own sentence, the `message` of its result line; may be empty.
        tail: the last lines of its log.
    """

    def __init__(self, code: int, message: str, tail: list[str] | None = None) -> None:
        self.code = int(code)
        self.message = message
        self.tail = tail or []
        super().__init__(f"exit code {code} ({meaning(code).title}): {message or 'no message'}")


class Final(ComponentFailed):
    """The same inputs would fail the same way again."""


class ServiceUnavailable(ComponentFailed):
    """A server did not answer."""


class TaskOutOfMemory(ComponentFailed):
    """The GPU's memory did not suffice; fewer images at a time may."""


class TaskInterrupted(ComponentFailed):
    """Stopped from outside; trying again may come to the end."""


def failure(code: int, message: str, tail: list[str] | None = None) -> ComponentFailed:
    """The exception for an exit code other than 0."""
    if code in _FINAL:
        return Final(code, message, tail)
    if code == ExitCode.SERVICE_DOWN:
        return ServiceUnavailable(code, message, tail)
    if code == ExitCode.GPU_OUT_OF_MEMORY:
        return TaskOutOfMemory(code, message, tail)
    if code == ExitCode.INTERRUPTED or code < 0 or code > 128:
        return TaskInterrupted(code, message, tail)
    return ComponentFailed(code, message, tail)


def retry_policy() -> ExceptionRetryPolicy:
    """Which failures are tried again; a service that is down, and what is unknown, with the task's growing delay."""
    short_delay = timedelta(seconds=5)
    return ExceptionRetryPolicy(
        rules=[
            RetryRule(Final, action=RetryAction.FAIL, reason="trying again would give the same"),
            RetryRule(TaskOutOfMemory, retry_delay=short_delay, reason="again, with twice the micro-batches"),
            RetryRule(TaskInterrupted, retry_delay=short_delay, reason="interrupted from outside"),
        ]
    )
