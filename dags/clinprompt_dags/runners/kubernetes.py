"""The kubernetes runner: one pod per task instance, in the namespace that params.yaml names."""

from collections import deque
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from airflow.exceptions import AirflowException
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import models as k8s

from clinprompt.contract.variables import JOURNAL, PREFIX, RESULT_FILE, STORE
from clinprompt_dags.commands import TaskCommand
from clinprompt_dags.config import Settings
from clinprompt_dags.failures import failure
from clinprompt_dags.graph import Need
from clinprompt_dags.operators import ComponentTask, may_sign
from clinprompt_dags.runners.containers import (
    COMMAND,
    SCRATCH,
    SIGNING,
    USER,
    image_reference,
    key_file,
    keys,
    own_variables,
    volumes,
)
from clinprompt_dags.task import TAIL, Call, conclude

NAME = "clinprompt"  # of the secret, the config map and the service account
PROMOTER = "clinprompt-promoter"  # the secret of the tasks that change the registry; it wins over the other
GPU = "nvidia.com/gpu"
_RESULT = "/airflow/xcom/return.json"
_STARTUP = 1200  # seconds; an image with CUDA takes long to pull
_SIDECAR = "airflow-xcom-sidecar"


class KubernetesTask(ComponentTask, KubernetesPodOperator):
    """A pod whose secrets come from a Secret of the namespace, and are not in its spec."""

    template_fields: Sequence[str] = ("candidate", "image")

    def __init__(self, *, task_command: TaskCommand, need: Need, settings: Settings, **kwargs: Any) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        signs = may_sign(task_command, need)
        super().__init__(
            task_command=task_command,
            need=need,
            settings=settings,
            image=image_reference(settings, need.image),
            cmds=COMMAND,
            name=f"{NAME}-{task_command.command}",
            namespace=settings.namespace,
            service_account_name=NAME,
            automount_service_account_token=False,
            labels={"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": need.image},
            env_from=_env_from(need),
            volumes=_volumes(settings, need, signs=signs),
            volume_mounts=_mounts(settings, need, signs=signs),
            container_resources=_resources(need, settings),
            tolerations=_tolerations(need, settings),
            security_context=_pod_security(),
            container_security_context=_container_security(),
            xcom_sidecar_container_security_context=_container_security(),
            do_xcom_push=True,
            on_finish_action="delete_pod",
            log_pod_spec_on_failure=False,
            log_events_on_failure=True,
            container_name_log_prefix_enabled=False,
            startup_timeout_seconds=_STARTUP,
            termination_grace_period=30,
            active_deadline_seconds=60 * need.timeout_minutes,
            **kwargs,
        )
        self.log_formatter = self._keep_line

    def execute(self, context: Any) -> Any:
        """The steps of every runner; those of KubernetesPodOperator follow in `run_component`."""
        return ComponentTask.execute(self, context)

    def run_component(self, call: Call, context: Any) -> dict[str, Any]:
        """Run the pod. Services and secrets come from the namespace, not from the worker."""
        self.arguments = call.arguments
        own = {key: value for key, value in call.plain.items() if key.startswith(PREFIX)}
        for name in (STORE, JOURNAL):
            own.pop(name, None)
        variables = {**own, **own_variables(self.settings, self.need, signs=self.signs), RESULT_FILE: _RESULT}
        self.env_vars = [k8s.V1EnvVar(name=key, value=value) for key, value in sorted(variables.items())]
        self.tail.clear()
        result: dict[str, Any] | None = KubernetesPodOperator.execute(self, context)
        return result or {} if self.task_command.quiet else conclude(0, result, self.tail)

    def build_pod_request_obj(self, context: Any = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """The pod, whose sidecar runs in the task's own pinned image instead of a foreign one."""
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        for container in pod.spec.containers:
            if container.name == _SIDECAR:
                container.image = self.image
        return pod

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
        """Remove the pod; when it failed, say so by its exit code. A failed task's result is no XCom."""
        try:
            super().cleanup(pod, remote_pod, xcom_result=None, context=context)
        except AirflowException as error:
            code = exit_code(remote_pod, self.base_container_name)
            if code is None:
                raise
            message = xcom_result.get("message", "") if isinstance(xcom_result, dict) else ""
            raise failure(code, message, [*self.tail]) from error

    def _keep_line(self, container: str, line: str) -> str:
        self.tail.append(line)
        return line


def exit_code(pod: Any, container: str) -> int | None:
    """The exit code of a pod's ended container; None while it has none."""
    statuses = (pod.status.container_statuses if pod and pod.status else None) or []
    for status in statuses:
        if status.name == container and status.state and status.state.terminated:
            return int(status.state.terminated.exit_code)
    return None


def _uses_gpu(need: Need, settings: Settings) -> bool:
    return need.gpu == "required" or (need.gpu == "optional" and settings.gpu)


def _resources(need: Need, settings: Settings) -> k8s.V1ResourceRequirements:
    """What component.yaml reserves; the memory is a limit too, the CPUs are not."""
    gpu = {GPU: "1"} if _uses_gpu(need, settings) else {}
    return k8s.V1ResourceRequirements(
        requests={"cpu": str(need.cpu), "memory": need.memory, **gpu}, limits={"memory": need.memory, **gpu}
    )


def _tolerations(need: Need, settings: Settings) -> list[k8s.V1Toleration]:
    if not _uses_gpu(need, settings):
        return []
    return [k8s.V1Toleration(key=GPU, operator="Exists", effect="NoSchedule")]


def _env_from(need: Need) -> list[k8s.V1EnvFromSource]:
    secrets = [NAME, PROMOTER] if need.promotes else [NAME]
    return [
        k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=NAME, optional=True)),
        *(k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name)) for name in secrets),
    ]


def _volumes(settings: Settings, need: Need, *, signs: bool) -> list[k8s.V1Volume]:
    pod_volumes = [
        k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource()),
        k8s.V1Volume(name="scratch", empty_dir=k8s.V1EmptyDirVolumeSource()),
    ]
    for name, source in volumes(settings).items():
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=source)
        pod_volumes.append(k8s.V1Volume(name=name, persistent_volume_claim=claim))
    for name, source in keys(settings, need, signs=signs).items():
        if name == SIGNING:
            volume = k8s.V1Volume(name=name, secret=k8s.V1SecretVolumeSource(secret_name=source, default_mode=0o440))
        else:
            volume = k8s.V1Volume(name=name, config_map=k8s.V1ConfigMapVolumeSource(name=source))
        pod_volumes.append(volume)
    return pod_volumes


def _mounts(settings: Settings, need: Need, *, signs: bool) -> list[k8s.V1VolumeMount]:
    mounts = [
        k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 # the pod's own
        k8s.V1VolumeMount(name="scratch", mount_path=SCRATCH),
    ]
    mounts += [k8s.V1VolumeMount(name=name, mount_path=f"/{name}") for name in volumes(settings)]
    own = keys(settings, need, signs=signs)
    folders = {name: str(PurePosixPath(key_file(name)).parent) for name in own}
    return mounts + [k8s.V1VolumeMount(name=name, mount_path=path, read_only=True) for name, path in folders.items()]


def _pod_security() -> k8s.V1PodSecurityContext:
    return k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    )


def _container_security() -> k8s.V1SecurityContext:
    return k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
    )
