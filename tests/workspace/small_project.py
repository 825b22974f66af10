"""A small project with a drawn dataset, and a store in a folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clinprompt.contract.tasks import pack
from clinprompt.demo.phantom import write_phantom
from workspace.plan import plan
from workspace.stage import run_stage
from workspace.store import Store
from workspace.task import LockEntry, Plan, PlanTask, StageTask

PARTS = ["clinprompt", "components", "datasets", "dvc.yaml", "infra/images.lock", "params.yaml", "registry"]
PARTS += ["workspace", ".dvcignore", "requirements/components.txt"]


@dataclass(frozen=True)
class Project:
    """A copy of the project whose card reads images from a folder, and its store."""

    root: Path
    store: Store

    def plan(self, **asked: Any) -> Plan:
        """The plan of a run on the drawn images."""
        return plan(PlanTask(dataset="drawn", **asked), self.store)

    def run(self, settled: Plan, stage: str, *entries: LockEntry) -> tuple[LockEntry, bool]:
        """Run a stage: its entry, and whether it was cached."""
        done = run_stage(StageTask(plan=settled, stage=stage, entries=list(entries)), self.store)
        return LockEntry.model_validate(done["entry"]), done["cached"]

    def command(self, name: str, task: dict[str, Any] | None = None, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run the command as a scheduler does: its exit status, and what stands on standard output."""
        env = {**os.environ, "CLINPROMPT_TASK": pack(task)} if task is not None else dict(os.environ)
        done = subprocess.run(
            [sys.executable, "-m", "workspace", name, *arguments],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        [line] = done.stdout.splitlines()
        return done.returncode, json.loads(line)

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change a YAML file of the project."""
        value = yaml.safe_load((self.root / name).read_text())
        change(value)
        (self.root / name).write_text(yaml.safe_dump(value, sort_keys=False))


@dataclass(frozen=True)
class Ran:
    """A stage that ran in a project: its entry, and whether it was cached."""

    folder: Path  # holds the project, its store and its scratch folder
    project: Project
    plan: Plan
    entry: LockEntry
    cached: bool


def draw(folder: Path, patients: int, seed: int = 0) -> Path:
    """Images of four classes with their table, as if from somewhere else."""
    write_phantom(folder, patients=patients, images_per_patient=1, size=32, seed=seed)
    return folder
