"""Errors that a user can act on, and the exit codes that every component shares.

An error's message is one sentence or two: what is wrong, where (file, row, key), what was expected, what to do.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a component's exit status means; an orchestrator decides from it whether a retry makes sense."""

    OK = 0
    BAD_PARAMS = 64
    DATA_REJECTED = 65
    INPUT_MISSING = 66
    INPUT_CORRUPT = 67
    SERVICE_DOWN = 69
    BUG = 70
    GPU_OUT_OF_MEMORY = 72
    INTERRUPTED = 75
    GATE_REJECTED = 77


class ClinpromptError(Exception):
    """Base of the errors that end a component with one sentence instead of a traceback."""

    exit_code = ExitCode.BUG


class BadParams(ClinpromptError):
    """A key, value or option that the user wrote is not one that exists or makes sense."""

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
    """Stopped from outside (signal, full disk); running again goes on from the last checkpoint."""

    exit_code = ExitCode.INTERRUPTED


class GateRejected(ClinpromptError):
    """No candidate passed the gate."""

    exit_code = ExitCode.GATE_REJECTED
