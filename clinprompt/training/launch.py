"""Starts the processes that train together, as torchrun would."""

import json
import logging
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from clinprompt.errors import ClinpromptError, Interrupted
from clinprompt.scratch import ScratchFolder

T = TypeVar("T")


def run_in_processes(processes: int, entry: Callable[..., T], *arguments: Any) -> T:
    """Run a function in this many processes, as torchrun would, and return what the first one returns.

    Args:
        entry: a function of a module, which calls `joined`; its arguments and its result must be picklable.

    Raises:
        ClinpromptError: what one of the processes raised, or Interrupted when this one is told to stop.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torchelastic-events-null").setLevel(logging.WARNING)  # a line of JSON for each process's steps
    with ScratchFolder("logs") as logs, ScratchFolder("errors") as error_folder:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=uuid.uuid4().hex, max_restarts=0,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )  # fmt: skip
        try:
            result: T = elastic_launch(config, _explained)(Path(error_folder), entry, *arguments)[0]
        except SignalException as stop:
            raise Interrupted(f"stopped by {stop.sigval.name}") from None
        except ChildFailedError as failed:
            raise _cause(Path(error_folder), failed) from None
    return result


def _explained(folder: Path, entry: Callable[..., T], *arguments: Any) -> T:
    """In one of the processes: exceptions don't cross to the parent, so what went wrong goes into a file."""
    try:
        return entry(*arguments)
    except Exception as error:
        text = json.dumps([type(error).__name__, str(error)])
        (folder / os.environ["RANK"]).write_text(text, encoding="utf-8")
        if isinstance(error, ClinpromptError | torch.OutOfMemoryError):
            sys.exit(1)  # one sentence is enough
        raise


def _cause(folder: Path, failed: Exception) -> Exception:
    """The error that a user can act on: when one process fails, the others may only miss it."""
    errors = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.iterdir())]
    error_classes = {kind.__name__: kind for kind in (*ClinpromptError.__subclasses__(), torch.OutOfMemoryError)}
    for kind, message in errors:
        if kind in error_classes:
            return error_classes[kind](message)
    return RuntimeError(": ".join(errors[0])) if errors else failed
