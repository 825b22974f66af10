"""One progress bar per long loop, on standard error."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None, unit: str = "it", done: int = 0) -> Iterator[T]:
    """Iterate over `items` with a bar on a terminal, or a line every ten seconds in a log.

    Args:
        total: how many there are in all, those that were done before among them.
        done: how many of them were done before, by a run that was interrupted.
    """
    interactive = sys.stderr.isatty()
    yield from tqdm(
        items,
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        file=sys.stderr,
        mininterval=0.2 if interactive else 10.0,
        dynamic_ncols=interactive,
        leave=interactive,
        disable=os.environ.get("RANK", "0") != "0",  # only the first rank of a distributed training shows the bar
    )
