"""`python -m components.run`: mend what a kill has left, run `dvc repro`, and say what came of it.

The stages run with this Python, whether or not the shell has its environment activated.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from clinprompt import cli
from clinprompt.errors import BadParams
from clinprompt.experiments.tables.papers import edit_params
from clinprompt.process import short_lived
from clinprompt.schema import read_yaml
from components.__main__ import show
from components.mend import mend_after_kill

app = cli.application()


@app.command(help=__doc__)
def reproduce(
    targets: Annotated[list[str] | None, typer.Argument(help="stages, as for `dvc repro`; by default all")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="a YAML file of dotted keys, which are set in params.yaml first")
    ] = None,
) -> None:
    """Mend, reproduce, and where all stages were meant print the summary.

    Raises:
        BadParams: the settings can't be read, or name a key that params.yaml does not have.
        SystemExit: with DVC's code, where a stage fails.
    """
    from dvc.cli import main as dvc

    if settings is not None:
        _set(settings)
    for line in mend_after_kill():
        sys.stderr.write(f"{line}\n")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(_without_command)
    code = int(dvc(["repro", *(targets or [])]))
    if code:
        sys.exit(code)
    if not targets:
        show()


def _set(settings: Path) -> None:
    changes = read_yaml(settings)
    if not isinstance(changes, dict):
        raise BadParams(
            f"{settings}: expected dotted keys of params.yaml with their values, as `backbone.name: demo-clip`."
        )
    edit_params(Path("params.yaml"), changes)
    lines = [f"  {key}: {value}\n" for key, value in changes.items()]
    sys.stderr.write("".join(["params.yaml has changed (`git checkout params.yaml` takes it back):\n", *lines]))


def _without_command(record: logging.LogRecord) -> bool:
    """Leave a failed stage's command, which stands above in full, out of DVC's last line."""
    from dvc.stage.exceptions import StageCmdFailedError

    error = record.exc_info[1] if record.exc_info else None
    cause = error.__cause__ if error else None
    if isinstance(cause, StageCmdFailedError):
        status = str(cause).rpartition(", exited with ")[2]
        cause.args = (f"it ended with {status} and its own sentence",)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; DVC's exit code where a stage fails, 75 while DVC is at work already."""
    return cli.main(app, argv, "python -m components.run")


if __name__ == "__main__":
    short_lived()
    sys.exit(main())
