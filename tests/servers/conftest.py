"""One stack of real servers for all tests below, and a small project that its DAGs run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_stack import running_stack

from clinprompt.demo.phantom import write_phantom
from infra.dev.servers import Stack

PARTS = ["clinprompt", "components", "dags", "datasets", "registry", "infra/images.lock", "requirements/components.txt"]
PARTS += ["workspace", ".dvcignore", "dvc.yaml", "params.yaml"]
DATASET = "brain-phantom"


@dataclass(frozen=True)
class Project:
    """A copy of the project with short trainings; the stack's workers run its code."""

    root: Path
    env: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command with the components' interpreter first on the path."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, **self.env, "PATH": path, "DVC_NO_ANALYTICS": "1"}
        return subprocess.run(command, cwd=cwd or self.root, env=env, capture_output=True, text=True, check=False)

    def publish(self, release: str, *, patients: int, seed: int = 0) -> None:
        """Draw images and publish them as a release."""
        folder = self.root.parent / release
        write_phantom(folder, patients=patients, images_per_patient=1, size=96, seed=seed)
        done = self.run(sys.executable, "-m", "workspace", "release", DATASET, str(folder), "--name", release)
        assert done.returncode == 0, done.stderr

    def champion(self) -> dict[str, Any]:
        """What `python -m registry show` tells of the production model."""
        done = self.run(sys.executable, "-m", "registry", "show", DATASET, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change a YAML file of the project."""
        value = yaml.safe_load((self.root / name).read_text())
        change(value)
        (self.root / name).write_text(yaml.safe_dump(value, sort_keys=False))


def _short(params: Any) -> None:
    params["candidates"] |= {"methods": ["zero_shot", "coop"], "seeds": [1]}
    params["methods"]["coop"] = {"epochs": 8}
    params["validation"]["min_images_per_class"] = 1
    params["knowledge"].update(aspects=["shape"], descriptions_per_aspect=1, min_accepted_per_class=0)
    params["knowledge"] |= {"max_new_tokens": 24, "answer_tokens": 24}
    params["explain"] |= {"examples_per_class": 1, "images": 12}
    params["gate"]["min_patients_per_class"] = 1
    params["gate"]["rules"] = [
        {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.0},
        {"kind": "not_worse_than_champion", "margin": 0.99},
    ]
    params["airflow"].update(python=sys.executable)


@pytest.fixture(scope="session")
def project_root(root: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The small project's folder. Its runs announce their doubtful descriptions where a test waits for that."""
    target = tmp_path_factory.mktemp("airflow") / "project"
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (root / part).is_dir():
            shutil.copytree(root / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / part, target / part)
    small = Project(target, {})
    small.edit("params.yaml", _short)
    if any(item.path.name == "test_servers_review.py" for item in request.session.items):
        small.edit("params.yaml", lambda params: params["airflow"].update(review="after_runs"))
    return target


@pytest.fixture(scope="session")
def stack(project_root: Path) -> Iterator[Stack]:
    """The running servers, with the project's DAGs and one of their own."""
    # A service that is away is asked again soon; the host's network is that of the servers.
    settings = {
        "CLINPROMPT_RETRY_SECONDS": "5",
        "CLINPROMPT_APPROVAL_SECONDS": "60",
        "CLINPROMPT_NETWORK": "host",
        "OMP_NUM_THREADS": "1",
    }
    yield from running_stack(project_root / "dags", settings)


@pytest.fixture(scope="session")
def project(project_root: Path, stack: Stack) -> Project:
    """The small project, and the variables that reach the stack."""
    return Project(project_root, stack.env)
