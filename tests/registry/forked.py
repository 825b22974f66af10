"""Processes that fork from one whose imports are done, and that can be killed right after any of their writes.

What forks them must have no connection to the registry that they open: MLflow's may not be inherited.
"""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkContext
from typing import Any

FORK: ForkContext = multiprocessing.get_context("fork")  # after the imports, which take seconds


def in_child(action: Callable[..., Any], *args: Any) -> Any:
    """Run an action in a process of its own; what it returns."""
    results = FORK.SimpleQueue()
    process = FORK.Process(target=lambda: results.put(action(*args)))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{action.__name__} ended with {process.exitcode}"
    return results.get()


def die_after(write: int, methods: list[tuple[type, str]]) -> None:
    """From now on this process is killed right after the write with this number.

    Args:
        methods: the classes' methods that write.
    """
    count = itertools.count(1)
    for owner, name in methods:
        setattr(owner, name, _deadly(getattr(owner, name), count, write))


def _deadly(action: Callable[..., Any], count: "itertools.count[int]", last: int) -> Callable[..., Any]:
    def act(*args: Any, **kwargs: Any) -> Any:
        result = action(*args, **kwargs)
        if next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return act
