"""The time, so that tests can have their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the protocol asks of time.

    Attributes:
        beats: whether a lease is kept alive in the background.
    """

    beats: bool

    def now(self) -> float:
        """Seconds since 1970, UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's."""

    beats = True

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
