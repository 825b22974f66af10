"""The kubernetes runner's pods, checked against Kubernetes' own schema and against what a cluster's policy asks."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("kubernetes", reason="the kubernetes provider is not installed")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

STAGES = ("ingest", "validate", "describe", "cache", "tune", "evaluate", "gate", "explain", "report", "promote")


def render(project: Path, stage: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The task of a stage, and its pod as Kubernetes would get it."""
    from dataclasses import replace

    from kubernetes.client import ApiClient, models

    from clinprompt_dags.commands import StageCommand
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.entries import FromTasks
    from clinprompt_dags.graph import load_graph
    from clinprompt_dags.runners.kubernetes import KubernetesTask

    settings = replace(load_settings(project), **changes)
    need = load_graph(project)[stage].need
    task = KubernetesTask(task_id=stage, task_command=StageCommand(stage, FromTasks(())), need=need, settings=settings)
    task.arguments = ["-m", "workspace", "stage"]
    task.env_vars = [models.V1EnvVar(name="CLINPROMPT_TASK", value="x")]
    pod: dict[str, Any] = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))
    return task, pod


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("changes", [{}, {"gpu": True, "weights": "weights", "cache": "cache"}], ids=["plain", "gpu"])
def test_a_pod_is_valid(project: Path, stage: str, changes: dict[str, Any]) -> None:
    _, pod = render(project, stage, **changes)
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_pod_keeps_to_the_restricted_policy(project: Path, stage: str) -> None:
    from clinprompt_dags.graph import load_graph

    need = load_graph(project)[stage].need
    _, pod = render(project, stage)
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"
    assert {container["image"] for container in spec["containers"]} == {f"clinprompt-{need.image}@sha256:{'0' * 64}"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
    resources = spec["containers"][0]["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == need.memory


def test_secrets_come_from_the_namespace(project: Path) -> None:
    _, pod = render(project, "promote")
    container = pod["spec"]["containers"][0]
    assert {"secretRef": {"name": "clinprompt"}} in container["envFrom"]
    assert [variable["name"] for variable in container["env"]] == ["CLINPROMPT_TASK"]
    assert pod["metadata"]["namespace"] == "clinprompt"
    assert pod["spec"]["serviceAccountName"] == "clinprompt"


KEYS = {"signing": "clinprompt-signing", "verification": "clinprompt-verification"}


def test_only_the_pod_that_promotes_has_the_promoters_login_and_the_signing_key(project: Path) -> None:
    for stage in STAGES:
        _, pod = render(project, stage, **KEYS)
        container, text = pod["spec"]["containers"][0], json.dumps(pod)
        secrets = [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        if stage == "promote":
            assert secrets == ["clinprompt", "clinprompt-promoter"]  # the last one wins
            assert mounts.items() >= {"signing": "/keys/signing", "verification": "/keys/verification"}.items()
            volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
            assert volumes["signing"]["secret"]["secretName"] == "clinprompt-signing"
            kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        else:
            assert secrets == ["clinprompt"], stage
            assert not {"clinprompt-promoter", "clinprompt-signing"} & {*text.split('"')}, stage
            assert ("verification" in mounts) == (stage == "gate"), stage


def test_a_rollback_has_the_promoters_login_and_no_key_to_sign_with(project: Path) -> None:
    from dataclasses import replace

    from clinprompt_dags.commands import RollbackCommand
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.graph import Need
    from clinprompt_dags.runners.kubernetes import PROMOTER, KubernetesTask

    need = Need("registry", pool="promotion")
    settings = replace(load_settings(project), **KEYS)
    task = KubernetesTask(task_id="rollback", task_command=RollbackCommand(), need=need, settings=settings)
    assert [source.secret_ref.name for source in task.env_from if source.secret_ref] == ["clinprompt", PROMOTER]
    assert {volume.name for volume in task.volumes} == {"tmp", "scratch", "verification"}


def test_a_gpu_brings_its_limit_and_its_toleration(project: Path) -> None:
    _, plain = render(project, "tune")
    assert "tolerations" not in plain["spec"] or not plain["spec"]["tolerations"]
    _, pod = render(project, "tune", gpu=True, weights="weights", cache="images")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["weights"]["persistentVolumeClaim"] == {"claimName": "weights"}
    assert volumes["cache"]["persistentVolumeClaim"] == {"claimName": "images"}
    assert volumes["scratch"] == {"name": "scratch", "emptyDir": {}}


def test_the_environment_of_a_pod_holds_no_secret(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    from clinprompt_dags.runners.containers import SCRATCH
    from clinprompt_dags.task import Call

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    task, _ = render(project, "ingest", weights="weights", cache="images")
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: {"entry": {}})
    plain = {"CLINPROMPT_TASK": "x", "CLINPROMPT_MICRO_BATCHES": "2", "MLFLOW_TRACKING_URI": "http://m"}
    assert task.run_component(Call(["-m"], {}, plain, {"AWS_SECRET_ACCESS_KEY": "hush"}), {}) == {"entry": {}}
    assert {variable.name: variable.value for variable in task.env_vars} == {
        "CLINPROMPT_TASK": "x",
        "CLINPROMPT_MICRO_BATCHES": "2",
        "CLINPROMPT_SCRATCH": SCRATCH,
        "CLINPROMPT_WEIGHTS": "/weights",
        "CLINPROMPT_CACHE": "/cache",
        "CLINPROMPT_RESULT_FILE": "/airflow/xcom/return.json",
        "OMP_NUM_THREADS": "2",
    }


@pytest.mark.parametrize(("code", "name"), [(65, "Final"), (69, "ServiceUnavailable"), (137, "TaskInterrupted")])
def test_a_failed_pods_exit_code_decides(project: Path, monkeypatch: pytest.MonkeyPatch, code: int, name: str) -> None:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from kubernetes.client import models

    from clinprompt_dags.failures import ComponentFailed

    task, _ = render(project, "ingest")
    ended = models.V1ContainerState(terminated=models.V1ContainerStateTerminated(exit_code=code))
    status = models.V1ContainerStatus(name="base", state=ended, image="i", image_id="i", ready=False, restart_count=0)
    pod = models.V1Pod(
        metadata=models.V1ObjectMeta(name="p", namespace="n"),
        spec=models.V1PodSpec(containers=[models.V1Container(name="base")]),
        status=models.V1PodStatus(phase="Failed", container_statuses=[status]),
    )
    for step in ("patch_already_checked", "process_pod_deletion", "_read_pod_events", "_read_pod_container_states"):
        monkeypatch.setattr(KubernetesPodOperator, step, lambda *_, **__: None)
    monkeypatch.setattr(KubernetesPodOperator, "is_istio_enabled", lambda *_: False)
    pushed: dict[str, Any] = {}
    context = {"ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))}
    task.log_formatter("base", "the last line")
    with pytest.raises(ComponentFailed, match=f"exit code {code} .*: why") as caught:
        task.cleanup(pod, pod, {"message": "why"}, context)
    assert type(caught.value).__name__ == name
    assert caught.value.tail == ["the last line"]
    assert json.dumps(pushed) == "{}"
