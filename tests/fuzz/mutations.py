"""Seeded damage to bytes and texts, and the call that must end in a result or in an error of the expected kinds."""

import random
import resource
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

_SECONDS = 10  # no input needs a tenth of it; the alarm only keeps a hang from stopping the tests
_NUMBERS = (0, 1, 2, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


class Hang(BaseException):
    """An input took `_SECONDS`; no `except Exception` catches it."""


def damaged(data: bytes, seed: int, parts: Iterable[bytes] = ()) -> bytes:
    """The bytes after one to four changes: bits, numbers of 2 and 4 bytes, cuts, repeats, a known part put in."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    mutated = bytearray(data)
    known = list(parts)
    for _ in range(rng.randint(1, 4)):
        if not mutated:
            break
        # Most of what a format promises stands in its first bytes.
        place = rng.randrange(min(len(mutated), 400) if rng.random() < 0.7 else len(mutated))
        kind = rng.randrange(6 if known else 5)
        if kind == 0:
            mutated[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutated[place] = rng.randrange(256)
        elif kind == 2:
            width, order = rng.choice((2, 4)), rng.choice(("little", "big"))
            number = rng.choice(_NUMBERS) % (1 << 8 * width)
            mutated[place : place + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 3:
            del mutated[place : place + rng.choice((1, 4, 30, len(mutated)))]
        elif kind == 4:
            piece = mutated[place : place + rng.randint(1, 60)]
            mutated[place:place] = piece * rng.choice((1, 2, 50))
        else:
            mutated[place:place] = rng.choice(known)
    return bytes(mutated)


def call_all(call: Callable[[Any], Any], inputs: Iterable[Any], expected: tuple[type[Exception], ...]) -> int:
    """Call with each input and return how many were taken; an error of another kind names the input's number.

    The memory of the process may grow by 1 GB at most.
    """
    taken = 0
    before = signal.signal(signal.SIGALRM, _alarm)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for number, value in enumerate(inputs):
            signal.alarm(_SECONDS)
            try:
                call(value)
                taken += 1
            except expected as error:
                text = str(error)
                assert text, f"input {number}: an error without a sentence"
                assert "\n" not in text, f"input {number}: {text!r}"
            except Hang:
                raise AssertionError(f"input {number} hangs: {value!r:.400}") from None
            except Exception as error:
                raise AssertionError(f"input {number}: {type(error).__name__}: {error}: {value!r:.400}") from error
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    assert grown < 1_000_000, f"{grown} kB more memory"  # Linux counts in kB
    return taken


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang
