"""The docker runner on a real engine: each task in a container of its own, from images built here.

Without the images of `make test-images` in podman's storage only the smallest one is built, and the run is followed up
to `validate`: the one with torch takes minutes to install.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DATASET, Project
from small_images import Engine, images_of, running_engine, small_project
from small_stack import running_stack

from clinprompt.files import sha256_file
from infra.dev.servers import Stack

pytestmark = pytest.mark.servers

TUNE = "candidates.tune"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[Engine]:
    """The engine."""
    yield from running_engine(root)


@pytest.fixture(scope="module")
def lacking(root: Path, engine: Engine) -> list[str]:
    """The images of `make test-images` that are not here."""
    return [image for image in images_of(root) if not engine.has(image)]


@pytest.fixture(scope="module")
def project_root(
    root: Path, project_root: Path, engine: Engine, lacking: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small project with the docker runner, its images built and locked."""
    copy = small_project(root, project_root, tmp_path_factory.mktemp("docker") / "project")
    copy.edit("params.yaml", lambda params: params["airflow"].update(runner="docker"))
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "what the images hold"]):
        git(copy.root, *command)
    engine.build(copy.root, ["data"] if lacking else [])
    if lacking:  # the DAGs want digests; no task gets as far as these

        def pretend(lock: Any) -> None:
            for name in ("vision", "registry"):
                lock[name]["digest"] = f"sha256:{'0' * 64}"

        copy.edit("infra/images.lock", pretend)
    return copy.root


@pytest.fixture(scope="module")
def stack(project_root: Path, engine: Engine) -> Iterator[Stack]:
    """Servers whose worker starts containers; in the host's network, these reach the servers."""
    settings = {
        "CLINPROMPT_RETRY_SECONDS": "5",
        "CLINPROMPT_NETWORK": "host",
        "OMP_NUM_THREADS": "1",
        "DOCKER_HOST": engine.env["DOCKER_HOST"],
    }
    yield from running_stack(project_root / "dags", settings)


@pytest.fixture(scope="module")
def project(project_root: Path, stack: Stack) -> Project:
    """The project, and the variables that reach the stack."""
    return Project(project_root, stack.env)


class Run:
    """A run of `retrain` and its containers."""

    def __init__(self, stack: Stack, engine: Engine, **params: Any) -> None:
        self.stack = stack
        self.engine = engine
        self.id = stack.airflow.trigger("retrain", {"dataset": DATASET, **params}, partition=f"{DATASET}@r1")

    def name(self, instance: str) -> str:
        """A task instance's container."""
        return f"clinprompt-retrain-{instance}-{hashlib.sha256(self.id.encode()).hexdigest()[:12]}"

    def containers(self) -> list[str]:
        """The containers that are there now, also ended ones."""
        return self.engine.podman("ps", "-a", "--filter", f"name={self.name('.*')}", "--format", "{{.Names}}").split()

    def inspect(self, name: str, timeout: float = 120) -> dict[str, Any]:
        """What the engine tells of a container, as soon as it runs."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = json.loads(self.engine.podman("container", "inspect", name, check=False) or "[]")
            if found and found[0]["State"]["Running"]:
                return dict(found[0])
            time.sleep(0.1)
        raise TimeoutError(f"no container {name} was seen")

    def wait(self, timeout: float = 600) -> dict[str, str | None]:
        """The states of the tasks, once the run has succeeded."""
        state = self.stack.airflow.wait_for_run("retrain", self.id, timeout)
        assert state == "success", self.stack.airflow.failures("retrain", self.id)
        return self.stack.airflow.states("retrain", self.id)


@pytest.fixture(scope="module")
def first(stack: Stack, engine: Engine, project: Project) -> Iterator[Run]:
    """The first run; its containers, if any are left, go in the end."""
    stack.airflow.wait_for_dags("retrain", timeout=120)
    stack.airflow.unpause("retrain")
    project.publish("r1", patients=24)
    run = Run(stack, engine)
    yield run
    stack.stop("worker")
    for name in run.containers():
        engine.podman("rm", "--force", "--volumes", name)


@pytest.fixture(scope="module")
def ingest(first: Run) -> dict[str, Any]:
    """What the engine tells of the container of `ingest` while it runs."""
    return first.inspect(first.name("ingest"), 240)


def test_a_container_has_few_rights_and_shows_no_secret(stack: Stack, ingest: dict[str, Any]) -> None:
    config, host = ingest["Config"], ingest["HostConfig"]
    assert config["User"] == "10001:10001"
    assert host["ReadonlyRootfs"] is True
    assert not host["Privileged"]
    assert not ingest["EffectiveCaps"]
    assert not ingest["BoundingCaps"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["Memory"] == 2 << 30
    assert [mount["Destination"] for mount in ingest["Mounts"]] == ["/var/tmp"]  # noqa: S108
    shown = json.dumps([config["Labels"], config["Annotations"], config["Cmd"], ingest["Path"], ingest["Args"]])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert stack.env[name]
        assert stack.env[name] not in shown


def test_the_stages_on_data_run_in_containers_that_are_gone_afterwards(
    stack: Stack, engine: Engine, first: Run, ingest: dict[str, Any]
) -> None:
    stack.airflow.wait_for_task("retrain", first.id, "validate", "success", timeout=300)
    assert not {first.name(task) for task in ("plan", "ingest", "validate")} & set(first.containers())
    assert ingest["Mounts"][0]["Name"] not in engine.podman("volume", "ls", "--quiet").split()
    assert stack.airflow.xcom("retrain", first.id, "ingest", key="facts")["images"] == 96
    assert "Running stage 'validate@brain-phantom'" in stack.airflow.log("retrain", first.id, "validate")


@pytest.fixture(scope="module")
def whole(lacking: list[str], first: Run) -> Run:
    """The first run to its end, where all images are here."""
    if lacking:
        pytest.skip(f"{', '.join(lacking)} not built here: make test-images")
    first.wait()
    return first


def test_a_run_in_containers_ends_with_a_champion_over_http(project: Project, whole: Run) -> None:
    assert whole.stack.airflow.states("retrain", whole.id)["promote"] == "success"
    assert whole.containers() == []
    [version] = project.champion()["versions"]
    assert version["lineage"]["airflow_run_id"] == whole.id
    image = next((project.root.parent / "r1").rglob("*.png"))
    table = f"registry.load('{DATASET}').predict([{{'image': pathlib.Path(sys.argv[1])}}]).T"
    code = f"import pathlib, sys, registry; print({table})"
    keyless = {key: value for key, value in project.env.items() if not key.startswith("AWS_")}
    done = Project(project.root, keyless).run(sys.executable, "-c", code, str(image))
    assert done.returncode == 0, done.stderr
    assert "p_no_tumor" in done.stdout


def test_the_workspace_of_what_containers_promoted_is_made_again(project: Project, whole: Run, tmp_path: Path) -> None:
    def told(*command: str) -> dict[str, Any]:
        done = project.run(sys.executable, "-m", "registry", *command, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    facts = told("lineage", DATASET)["lineage"]
    done = told("reproduce", DATASET, str(tmp_path / "again"))
    assert done["commit"] == facts["git_commit"] == git(project.root, "rev-parse", "HEAD")
    assert (done["version"], done["not_recorded"]) == (1, [])
    named = {
        "requirements/components.txt": "requirements_digest",
        f"datasets/{DATASET}.yaml": "card_digest",
        "params.yaml": "params_file_digest",
        "dvc.lock": "dvc_lock_digest",
        "infra/images.lock": "image_lock_digest",
        "reproduction/decision.json": "decision_digest",
    }
    made = {fact: sha256_file(tmp_path / "again" / name) for name, fact in named.items()}
    assert made == {fact: facts[fact] for fact in made}
    assert git(tmp_path / "again", "diff", "--name-only", "HEAD", "--", "clinprompt", "components", "registry") == ""


def test_a_killed_workers_container_goes_on_and_is_adopted(
    stack: Stack, engine: Engine, project: Project, whole: Run, tmp_path: Path
) -> None:
    long = {"methods": {"coop": {"epochs": 60}}}
    run = Run(stack, engine, methods=["coop"], seeds=[5], overrides=long, promote="never")
    name = run.name(f"{TUNE}-0")
    before = run.inspect(name, 240)
    stack.kill("worker")
    left = json.loads(engine.podman("container", "inspect", name))[0]
    assert (left["Id"], left["State"]["Running"]) == (before["Id"], True)
    stack.start("worker")
    assert run.wait()["promote"] == "skipped"
    assert run.containers() == []
    [task] = [task for task in stack.airflow.tasks("retrain", run.id) if task["task_id"] == TUNE]
    assert task["try_number"] == 2
    log = stack.airflow.log("retrain", run.id, TUNE, map_index=0, attempt=2)
    assert f"Going on with the container {name}" in log
    assert "Running stage 'tune@" in log  # what it said before
    assert "Removing the container" not in log
    recorded = stack.airflow.xcom("retrain", run.id, TUNE, map_index=0)["outs"]
    assert {path: facts[0] for path, facts in recorded.items()} == tuned_locally(project, tmp_path / "clone", 5)


def tuned_locally(project: Project, clone: Path, seed: int) -> dict[str, str]:
    """The digests of the same stage, run by `dvc repro` without a container."""
    shutil.copytree(project.root, clone, ignore=shutil.ignore_patterns("dags", "__pycache__"))
    (clone / ".dvc").mkdir()
    (clone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    stage = f"tune@{DATASET}-coop-{seed}"
    for command in (
        [sys.executable, "-m", "workspace", "checkout", DATASET],
        ["dvc", "repro", "-sf", stage],
    ):
        done = project.run(*command, cwd=clone)
        assert done.returncode == 0, done.stderr
    lock = yaml.safe_load((clone / "dvc.lock").read_text())["stages"][stage]
    return {out["path"]: out["md5"] for out in lock["outs"]}
