"""The kubernetes runner's pods on a real engine: podman plays them as they are rendered, against the real store."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from conftest import DATASET, Project
from small_images import Engine, running_engine, small_project

from clinprompt.contract.tasks import pack
from clinprompt.contract.variables import TASK
from infra.dev.servers import Stack

pytestmark = pytest.mark.servers

# Runs in Airflow's environment: prints the pod that the task of a stage would ask the cluster for.
RENDER = """
import json, sys
from pathlib import Path

project = Path(sys.argv[1])
sys.path.append(str(project / "dags"))

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import ApiClient

from clinprompt_dags.commands import StageCommand
from clinprompt_dags.entries import FromTasks
from clinprompt_dags.config import load_settings
from clinprompt_dags.graph import load_graph
from clinprompt_dags.runners.kubernetes import KubernetesTask
from clinprompt_dags.task import Call
from clinprompt.contract.tasks import pack


def show(self, context):
    pod = self.build_pod_request_obj(dry_run=True)
    Path(sys.argv[2]).write_text(json.dumps(ApiClient().sanitize_for_serialization(pod)))
    return {}


KubernetesPodOperator.execute = show
asked = json.load(sys.stdin)
command = StageCommand(asked["stage"], FromTasks(()))
need = load_graph(project)[asked["stage"]].need
task = KubernetesTask(task_id=asked["stage"], task_command=command, need=need, settings=load_settings(project))
task.run_component(Call(command.arguments({}), asked, {"CLINPROMPT_TASK": pack(asked)}, {}), {})
"""
SIDECAR = "airflow-xcom-sidecar"


@dataclass
class Cluster:
    """A namespace with one Secret and one ConfigMap, as podman can have it."""

    engine: Engine
    folder: Path
    env: dict[str, str]
    name: str = f"clinprompt-test-{os.getpid()}"

    def play(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Run a pod until its component has ended; the exit code, its log, and what the sidecar would be asked for."""
        settings = {key: value for key, value in self.env.items() if not key.endswith(("_ID", "_KEY"))}
        settings_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clinprompt"}, "data": settings}
        file = self.folder / "pod.yaml"
        file.write_text(yaml.safe_dump_all([settings_map, self.for_podman(pod)]))
        name, podman = pod["metadata"]["name"], self.engine.podman
        try:
            podman("play", "kube", "--network=host", str(file))
            code = int(podman("wait", f"{name}-base"))
            result = json.loads(podman("exec", f"{name}-{SIDECAR}", "cat", "/airflow/xcom/return.json"))
            [about] = json.loads(podman("container", "inspect", f"{name}-base"))
            return {"code": code, "result": result, "log": podman("logs", f"{name}-base"), "about": about}
        finally:
            podman("pod", "rm", "--force", "--time=0", name, check=False)

    def for_podman(self, pod: dict[str, Any]) -> dict[str, Any]:
        """The pod with the one change that podman needs: its secrets are not those of a namespace, but all machine's.

        So the Secret `clinprompt` has another name here. podman takes everything else: the security contexts, the
        memory limit, the volumes, the sidecar; it ignores the service account and the deadline.
        """
        text = json.dumps(pod)
        assert text.count('{"secretRef": {"name": "clinprompt"}}') == 1
        changed: dict[str, Any] = json.loads(
            text.replace('{"secretRef": {"name": "clinprompt"}}', f'{{"secretRef": {{"name": "{self.name}"}}}}')
        )
        return changed


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[Engine]:
    """The engine."""
    yield from running_engine(root)


@pytest.fixture(scope="module")
def project(
    root: Path, project_root: Path, engine: Engine, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """The small project with one image, and a store of its own."""
    copy = small_project(root, project_root, tmp_path_factory.mktemp("pods") / "project")
    engine.build(copy.root, ["data"])
    env = stack.env | {"CLINPROMPT_STORE": f"{stack.env['CLINPROMPT_STORE']}-pods"}
    project = Project(copy.root, env)
    project.publish("r1", patients=24)
    return project


@pytest.fixture(scope="module")
def cluster(project: Project, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Where the pods run."""
    cluster = Cluster(engine, tmp_path_factory.mktemp("cluster"), project.env)
    keys = {key: value for key, value in project.env.items() if key.endswith(("_ID", "_KEY"))}
    file = cluster.folder / "secret.json"  # as podman wants a Secret that pods name
    file.write_text(json.dumps({key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}))
    engine.podman("secret", "create", cluster.name, str(file))
    file.unlink()
    yield cluster
    engine.podman("secret", "rm", cluster.name)


@pytest.fixture(scope="module")
def asked(project: Project) -> dict[str, Any]:
    """What the task of `ingest` is asked, in a run that was planned."""
    images = (project.root / "infra" / "images.lock").read_text()
    env = project.env | {TASK: pack({"dataset": DATASET, "release": "r1", "images": images})}
    done = Project(project.root, env).run(sys.executable, "-m", "workspace", "plan")
    assert done.returncode == 0, done.stderr
    return {
        "plan": json.loads(done.stdout.splitlines()[-1])["plan"],
        "stage": "ingest",
        "candidate": None,
        "entries": [],
    }


def rendered(root: Path, project: Project, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The pod of a stage's task, by the kubernetes runner."""
    env = os.environ | {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    env["AIRFLOW_CONN_KUBERNETES_DEFAULT"] = "kubernetes://"  # of no cluster
    command = [str(root / ".venv-airflow/bin/python"), "-c", RENDER, str(project.root), str(folder / "pod.json")]
    done = subprocess.run(command, input=json.dumps(asked), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pod: dict[str, Any] = json.loads((folder / "pod.json").read_text())
    return pod


def test_a_stage_runs_in_its_pod_and_leaves_its_result_to_the_sidecar(
    root: Path, project: Project, cluster: Cluster, asked: dict[str, Any], tmp_path: Path
) -> None:
    pod = rendered(root, project, tmp_path, asked)
    assert project.env["AWS_SECRET_ACCESS_KEY"] not in json.dumps(pod)
    done = cluster.play(pod)
    assert done["code"] == 0
    assert done["result"] == json.loads(done["log"].splitlines()[-1])
    assert done["result"]["cached"] is False
    assert done["result"]["facts"]["images"] == 96
    config, host = done["about"]["Config"], done["about"]["HostConfig"]
    assert (config["User"], host["ReadonlyRootfs"], host["Memory"]) == ("10001:10001", True, 2 << 30)
    assert not done["about"]["BoundingCaps"]

    env = project.env
    bucket, _, prefix = env["CLINPROMPT_STORE"].removeprefix("s3://").partition("/")
    digest = done["result"]["entry"]["outs"][f"runs/{DATASET}/ingest/manifest.parquet"][0]
    s3 = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name=env["AWS_DEFAULT_REGION"],
    )
    assert s3.head_object(Bucket=bucket, Key=f"{prefix}/dvc/files/md5/{digest[:2]}/{digest[2:]}")["ContentLength"] > 0


def test_a_pod_that_fails_says_why_by_its_exit_code_and_its_result(
    root: Path, project: Project, cluster: Cluster, asked: dict[str, Any], tmp_path: Path
) -> None:
    other = {**asked, "plan": {**asked["plan"], "code": "0" * 64}}
    done = cluster.play(rendered(root, project, tmp_path, other))
    assert done["code"] == 64
    assert "has changed since the run was planned" in done["result"]["message"]
