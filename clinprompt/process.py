"""What a process that runs one command and ends asks of Python."""

import atexit
import gc


def short_lived() -> None:
    """Call it first in a process that runs one command: its start and its end cost less.

    torch, MLflow and Great Expectations make hundreds of thousands of objects when they are imported, which all stay.
    Python's collector looks through them again and again, and once more at the end, for a second or more. Here it
    seldom looks at the old ones, and at the end at none: the system takes back what a process held. The young ones,
    such as a training's tensors, it collects as always. What is to happen at the end is for `with` and `atexit`,
    which this leaves as they are.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 100)
    atexit.register(gc.freeze)  # the first that is registered runs last
