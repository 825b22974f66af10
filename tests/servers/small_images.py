"""A real container engine, and the small project's images on it."""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import Project

TARGETS = ("data", "vision", "registry")
_PARTS = ["requirements", "pyproject.toml", ".dvcignore", ".dockerignore"]
_PARTS += ["infra/Dockerfile", "infra/install.sh", "infra/images.py", "infra/__init__.py"]


@dataclass(frozen=True)
class Engine:
    """podman, with its Docker-compatible socket; `env` reaches it."""

    env: dict[str, str]
    base: str  # the image to build on

    def podman(self, *arguments: str, check: bool = True) -> str:
        """What a podman command prints."""
        return self._run("podman", *arguments, check=check).stdout.strip()

    def has(self, image: str) -> bool:
        """Whether an image is here."""
        return self._run("podman", "image", "exists", image, check=False).returncode == 0

    def build(self, root: Path, targets: Iterable[str]) -> None:
        """Build the images of a project and lock them; steps that were built before are taken from then."""
        for command in (("build", *targets, "--base", self.base), ("lock",)):
            done = self._run(
                sys.executable, "-m", "infra.images", "--engine", "podman", *command, check=False, cwd=root
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    def _run(self, *command: str, check: bool, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = os.environ | self.env
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=check)


def running_engine(root: Path) -> Iterator[Engine]:
    """An engine of this test's own, whose images stay in podman's storage; skips where there can be none."""
    lacking = [tool for tool in ("podman", "runc", "curl") if shutil.which(tool) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not found; infra/dev/packages.sh installs them")
    folder = tempfile.mkdtemp(prefix="clinprompt-engine-")
    environment = {**os.environ, "CLINPROMPT_ENGINE_DIR": folder}
    environment.pop("DOCKER_HOST", None)

    def script(command: str) -> subprocess.CompletedProcess[str]:
        path = root / "infra" / "dev" / "engine.sh"
        return subprocess.run([path, command], env=environment, capture_output=True, text=True, check=False)

    try:
        if script("up").returncode != 0:
            pytest.skip(f"no container engine: {script('up').stderr.strip().splitlines()[-1]}")
        lines = [line.removeprefix("export ") for line in script("env").stdout.splitlines()]
        variables = dict(line.split("=", 1) for line in lines)
        if "CONTAINERS_CONF" not in variables:
            pytest.skip("a Docker engine runs here; it knows no digest of an image that was not pushed to a registry")
        yield Engine(variables, script("base").stdout.strip())
    finally:
        script("down")
        shutil.rmtree(folder, ignore_errors=True)


def small_project(root: Path, small: Path, target: Path) -> Project:
    """A copy of the small project that its images can be built from; they have names of their own."""
    shutil.copytree(small, target, ignore=shutil.ignore_patterns("__pycache__"))
    for part in _PARTS:
        if (root / part).is_dir():
            shutil.copytree(root / part, target / part, dirs_exist_ok=True)
        else:
            shutil.copy(root / part, target / part)
    project = Project(target, {})
    lock = {name: {"reference": f"clinprompt-test-{name}", "digest": None} for name in TARGETS}
    (target / "infra" / "images.lock").write_text(yaml.safe_dump(lock))
    return project


def images_of(root: Path) -> list[str]:
    """The images that `make test-images` builds, by the project's own names."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    lock = yaml.safe_load((root / "infra" / "images.lock").read_text())
    return [f"{lock[name]['reference']}:{version}" for name in TARGETS]
