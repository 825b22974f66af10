"""Standard output of a command whose reader may go away, as that of `| head -1` does: what was to be done is done."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _Tolerant:
    """A text stream that can be closed at its other end, and takes names of files in whatever bytes they have."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or leave it where nobody reads."""
        with self._nobody_may_read():
            if self._stream is not None:  # it is closed, as by `>&-`
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    encoding = self._stream.encoding
                    self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        with self._nobody_may_read():
            if self._stream is not None:
                self._stream.flush()

    @contextlib.contextmanager
    def _nobody_may_read(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # also of a full disk
            # What is held back goes nowhere: else Python would try it again as it ends, and fail.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno() if self._stream is not None else nowhere)
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise


@contextlib.contextmanager
def tolerant() -> Iterator[None]:
    """What is printed in the `with` block is written by its end, as far as somebody reads it."""
    output: Any = _Tolerant(sys.stdout)
    with contextlib.redirect_stdout(output):
        try:
            yield
        finally:
            output.flush()
