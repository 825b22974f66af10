"""Errors that a user can act on, each with its exit code.

An error's message is one sentence or two: what is wrong, where (file, row, key), what was expected, what to do.
"""

from clinprompt.contract.exit_codes import ExitCode


class ClinpromptError(Exception):
    """Base of the errors that end a component with one sentence instead of a traceback."""

    exit_code = ExitCode.BUG


class BadParams(ClinpromptError):
    """A key, value or option that the user wrote is not one that exists or makes sense."""

    exit_code = ExitCode.BAD_PARAMS


class NotTrained(ClinpromptError):
    """A candidate can't be trained, for a reason of its own that is the same each time; others may be."""

    exit_code = ExitCode.BAD_PARAMS


class DataRejected(ClinpromptError):
    """The data was read and is not fit for training.

    With `publish=True` the component's outputs are complete and are kept, so that the user can look at the evidence.
    """

    exit_code = ExitCode.DATA_REJECTED

    def __init__(self, message: str, *, publish: bool = False) -> None:
        super().__init__(message)
        self.publish = publish


class InputMissing(ClinpromptError):
    """A file or folder that should be there is not."""

    exit_code = ExitCode.INPUT_MISSING


class InputCorrupt(ClinpromptError):
    """A file is there but its bytes are not what they should be."""

    exit_code = ExitCode.INPUT_CORRUPT


class ServiceDown(ClinpromptError):
    """A server did not answer; trying again later may help."""

    exit_code = ExitCode.SERVICE_DOWN


class GpuOutOfMemory(ClinpromptError):
    """The GPU's memory is too small; when others have freed theirs it may do."""

    exit_code = ExitCode.GPU_OUT_OF_MEMORY


class BatchTooLarge(ClinpromptError):
    """The GPU's memory is too small for a training's batch; in more micro-batches it may do."""

    exit_code = ExitCode.GPU_OUT_OF_MEMORY


class Interrupted(ClinpromptError):
    """Stopped from outside (signal); running again goes on from the last checkpoint."""

    exit_code = ExitCode.INTERRUPTED


class OutOfResources(ClinpromptError):
    """The computer lacks space, memory or the like; running again goes on once there is some."""

    exit_code = ExitCode.INTERRUPTED


class GateRejected(ClinpromptError):
    """No candidate passed the gate."""

    exit_code = ExitCode.GATE_REJECTED


def of_code(code: int, message: str) -> ClinpromptError:
    """The error that another process has told of by its exit code and message."""
    kinds = (kind for kind in ClinpromptError.__subclasses__() if kind.exit_code == code)
    return next(kinds, ClinpromptError)(message)
