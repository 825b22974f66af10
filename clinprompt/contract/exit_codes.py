"""The exit codes that every component shares; an orchestrator decides from them whether a retry makes sense."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a component's exit status means."""

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
