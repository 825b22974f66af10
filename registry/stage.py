"""Promote what the gate has decided, as `dvc repro` does: by the stage of dvc.yaml, which knows its files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clinprompt.contract.variables import RESULT
from clinprompt.errors import ClinpromptError, InputMissing, of_code
from clinprompt.scratch import ScratchFolder


def own_python() -> dict[str, str]:
    """The environment of a command of dvc.yaml, which says `python`: this interpreter."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def promote(dataset: str, project: Path) -> dict[str, Any]:
    """Run the stage `promote` of a dataset, and no other, in the project's folder; the component's result.

    The decision is made again from the predictions before anything is promoted.

    Raises:
        InputMissing: there is no dvc.yaml, or the stage could not be started.
        ClinpromptError: what the component says, with its exit code.
    """
    if not (project / "dvc.yaml").is_file():
        raise InputMissing(f"{project.resolve()} has no dvc.yaml: run this in the project's folder.")
    with ScratchFolder("promote") as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "dvc", "repro", "--quiet", "--single-item", f"promote@{dataset}"]
        env = own_python() | {RESULT: str(result)}
        done = subprocess.run(command, cwd=project, env=env, stdout=subprocess.DEVNULL, check=False)  # noqa: S603
        if not result.is_file():
            raise InputMissing(f"The stage promote@{dataset} did not start; `dvc repro promote@{dataset}` says why.")
        told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    code = told.get("exit_code")
    if done.returncode == 0 and not code:
        return told
    if not code:
        raise ClinpromptError(f"promote@{dataset} ran, but DVC failed; `dvc repro promote@{dataset}` says why.")
    raise of_code(code, str(told["message"]))
