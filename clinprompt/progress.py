"""One progress bar per long loop, on standard error."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T], label: str, total: int | None = None, unit: str = "it", done: int = 0, *, nested: bool = False
) -> Iterator[T]:
    """Iterate over `items` with a bar on a terminal, or a line every ten seconds in a log.

    Args:
        total: how many there are in all, those that were done before among them.
        done: how many of them were done before, by a run that was interrupted.
        nested: a round of a loop that has a bar of its own; it is shown if it takes longer than ten seconds.
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
        leave=interactive and not nested,
        delay=10.0 if nested else 0.0,
        position=0 if nested else None,  # over the outer bar: on a line of its own it would move the cursor in a log
        disable=os.environ.get("RANK", "0") != "0",  # only the first rank of a distributed training shows the bar
    )
