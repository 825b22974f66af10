"""A small copy of the project in which the real pipeline runs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

PARTS = ["clinprompt", "components", "datasets", "dvc.yaml", "infra/images.lock", "params.yaml", "registry"]
PARTS += ["requirements", ".dvcignore"]


@dataclass(frozen=True)
class Workspace:
    """A project folder with its own DVC cache and registry."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The variables of a shell with the environment activated."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        hidden = {"CLINPROMPT_DATA", "MLFLOW_TRACKING_URI", "PYTHONPATH"}
        return {k: v for k, v in os.environ.items() if k not in hidden} | {"PATH": path}

    def repro(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `dvc repro`."""
        return self.run("dvc", "repro", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder; its output is kept."""
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change a YAML file."""
        value = yaml.safe_load((self.folder / name).read_text())
        change(value)
        (self.folder / name).write_text(yaml.safe_dump(value, sort_keys=False))

    def replace(self, name: str, old: str, new: str) -> None:
        """Change a text file in one place."""
        text = (self.folder / name).read_text()
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        (self.folder / name).write_text(text.replace(old, new))

    def changed(self) -> set[str]:
        """The stages that `dvc status` names, after the stage `lock` has looked at the sources."""
        renewed = self.repro("lock")
        assert renewed.returncode == 0, renewed.stdout + renewed.stderr
        status = self.run("dvc", "status", "--json")
        assert status.returncode == 0, status.stderr
        return set(json.loads(status.stdout))

    def json(self, name: str) -> Any:
        """Read a JSON file below runs/brain-phantom."""
        return json.loads((self.folder / "runs" / "brain-phantom" / name).read_text())

    def digests(self) -> dict[str, str]:
        """The digest of every output that DVC holds, as it recorded them."""
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}


@pytest.fixture(scope="session")
def make_workspace(root: Path) -> Callable[[Path], Workspace]:
    """Makes a workspace with a small phantom and short trainings."""

    def small_params(params: Any) -> None:
        params["candidates"] |= {"methods": ["zero_shot", "coop"], "seeds": [1]}
        params["methods"] |= {"coop": {"epochs": 12}, "biomedcoop": {"epochs": 2}}
        params["training"]["checkpoint_every"] = 2
        params["explain"] |= {"examples_per_class": 1, "images": 12}
        params["knowledge"].update(aspects=["shape", "signal"], descriptions_per_aspect=2, min_accepted_per_class=1)
        params["knowledge"]["answer_tokens"] = 24
        params["gate"]["min_patients_per_class"] = 1
        params["gate"]["rules"] = [
            {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.3},
            {"kind": "not_worse_than_champion", "margin": 0.02},
        ]

    def make(folder: Path) -> Workspace:
        folder.mkdir(parents=True)
        for part in PARTS:
            (folder / part).parent.mkdir(exist_ok=True)
            if (root / part).is_dir():
                shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(root / part, folder / part)
        workspace = Workspace(folder)
        workspace.edit("params.yaml", small_params)
        small = {"patients": 15, "images_per_patient": 3}
        workspace.edit("datasets/brain-phantom.yaml", lambda card: card["reader"].update(small))
        assert workspace.run("dvc", "init", "-q", "--no-scm").returncode == 0
        assert workspace.run("dvc", "config", "core.analytics", "false").returncode == 0
        return workspace

    return make
