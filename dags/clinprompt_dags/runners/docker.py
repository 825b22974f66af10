"""The docker runner: one container per task instance, on the engine that DOCKER_HOST names."""

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from airflow.providers.docker.operators.docker import DockerOperator
from docker.errors import APIError, NotFound
from docker.types import DeviceRequest, Mount

from clinprompt.contract.exit_codes import ExitCode
from clinprompt_dags.commands import TaskCommand
from clinprompt_dags.config import Settings
from clinprompt_dags.failures import failure
from clinprompt_dags.graph import Need, memory_bytes
from clinprompt_dags.operators import ComponentTask, may_sign
from clinprompt_dags.runners.containers import (
    COMMAND,
    SCRATCH,
    USER,
    image_reference,
    key_file,
    keys,
    own_variables,
    volumes,
)
from clinprompt_dags.task import TAIL, Call, conclude, read_result

LABEL = "clinprompt.task"
_STOP = 20  # seconds between SIGTERM and SIGKILL


class DockerTask(ComponentTask, DockerOperator):
    """A container named after the task instance, so that a worker's death leaves nothing that runs twice."""

    template_fields: Sequence[str] = ("candidate", "image")
    template_ext: Sequence[str] = ()

    def __init__(self, *, task_command: TaskCommand, need: Need, settings: Settings, **kwargs: Any) -> None:
        gpu = need.gpu == "required" or (need.gpu == "optional" and settings.gpu)
        super().__init__(
            task_command=task_command,
            need=need,
            settings=settings,
            image=image_reference(settings, need.image),
            api_version="auto",
            user=f"{USER}:{USER}",
            mount_tmp_dir=False,
            mounts=_mounts(settings, need, signs=may_sign(task_command, need)),
            network_mode=settings.network,
            mem_limit=memory_bytes(need.memory),
            cpus=need.cpu,
            device_requests=[DeviceRequest(count=1, capabilities=[["gpu"]])] if gpu else None,
            auto_remove="force",
            **kwargs,
        )

    def execute(self, context: Any) -> Any:
        """The steps of every runner; those of DockerOperator follow in `run_component`."""
        return ComponentTask.execute(self, context)

    def run_component(self, call: Call, context: Any) -> dict[str, Any]:
        """Pull the image where it is missing, and run the container."""
        self.container_name = container_name(context["ti"])
        self.command = [*COMMAND, *call.arguments]
        self.environment = {**call.plain, **own_variables(self.settings, self.need, signs=self.signs)}
        self._private_environment = call.private
        self.labels = {LABEL: call.digest}
        self._pull_missing()
        result: dict[str, Any] = self._run_image()
        return result

    def _pull_missing(self) -> None:
        """DockerOperator's own finds no image by its digest on podman, and does not see that a pull has failed."""
        try:
            self.cli.inspect_image(self.image)
            return
        except NotFound:
            self.log.info("Pulling %s.", self.image)
        try:
            steps = list(self.cli.pull(self.image, stream=True, decode=True))
        except APIError as error:
            steps = [{"error": error.explanation or str(error)}]
        for step in steps:
            if "error" in step:
                raise failure(
                    ExitCode.SERVICE_DOWN,
                    f"the engine has no image {self.image} and cannot pull it ({step['error']}); push it to a "
                    "registry, or build it where the engine runs (`make images`).",
                )

    def _run_image_with_mounts(self, target_mounts: list[Mount], add_tmp_variable: bool) -> Any:
        """DockerOperator's own, but for what it cannot say: adoption, a read-only root, the exit code, two streams."""
        adopted = self._adopt()
        self.container = adopted or self._create(target_mounts)
        name = self.container["Id"]
        tail: deque[str] = deque(maxlen=TAIL)
        try:
            if not adopted:
                self.cli.start(name)
            # Not by attaching: podman starts an ended container anew for that, and mixes the streams of an adopted one.
            self._follow(self.cli.logs(name, stdout=False, stderr=True, stream=True, follow=True), tail)
            code = int(self.cli.wait(name)["StatusCode"])
            output: bytes = self.cli.logs(name, stdout=True, stderr=False)
        finally:
            self.cli.remove_container(name, force=True, v=True)
        return conclude(code, read_result(output.decode("utf-8", errors="replace").splitlines()), tail)

    def on_kill(self) -> None:
        """Let the component save what it has, then remove the container."""
        if self.container is None:
            return
        try:
            self.cli.stop(self.container["Id"], timeout=_STOP)
            self.cli.remove_container(self.container["Id"], force=True, v=True)
        except APIError as error:
            self.log.info("The container is gone already: %s", error)

    def _create(self, mounts: list[Mount]) -> dict[str, Any]:
        host_config = self.cli.create_host_config(
            mounts=mounts,
            network_mode=self.network_mode,
            mem_limit=self.mem_limit,
            cpu_shares=round(self.cpus * 1024),
            device_requests=self.device_requests,
            read_only=True,
            tmpfs={"/tmp": "rw,mode=1777"},  # noqa: S108 # the container's own
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        created: dict[str, Any] = self.cli.create_container(
            image=self.image,
            command=self.command,
            name=self.container_name,
            environment={**self.environment, **self._private_environment},
            host_config=host_config,
            user=self.user,
            labels=self.labels,
        )
        return created

    def _adopt(self) -> dict[str, Any] | None:
        """The container that an earlier try left, when it does or has done this work; any other one is removed."""
        try:
            container: dict[str, Any] = self.cli.inspect_container(self.container_name)
        except NotFound:
            return None
        state, labels = container["State"], container["Config"].get("Labels") or {}
        useful = state.get("Running") or (state.get("Status") == "exited" and state.get("ExitCode") == 0)
        if useful and labels.get(LABEL) == self.labels[LABEL]:
            self.log.info("Going on with the container %s that an earlier try has left.", self.container_name)
            return container
        self.log.info("Removing the container %s that an earlier try has left.", self.container_name)
        self.cli.remove_container(container["Id"], force=True, v=True)
        return None

    def _follow(self, stream: Iterable[bytes], tail: deque[str]) -> None:
        """Log line by line; a progress bar's carriage return ends one too."""
        unfinished = b""
        for chunk in stream:
            *lines, unfinished = re.split(rb"[\r\n]", unfinished + chunk)
            self._log(lines, tail)
        self._log([unfinished], tail)

    def _log(self, lines: list[bytes], tail: deque[str]) -> None:
        for line in lines:
            if text := line.decode("utf-8", errors="replace").rstrip():
                tail.append(text)
                self.log.info("%s", text)


def container_name(ti: Any) -> str:
    """The same for all tries of a task instance."""
    instance = f"{ti.task_id}-{ti.map_index}" if ti.map_index >= 0 else ti.task_id
    run = hashlib.sha256(ti.run_id.encode()).hexdigest()[:12]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"clinprompt-{ti.dag_id}-{instance}-{run}")


def _mounts(settings: Settings, need: Need, *, signs: bool) -> list[Mount]:
    """A fresh volume for workspaces, which goes with its container, what stays on the node, and the keys."""
    mounts = [Mount(target=SCRATCH, source=None, type="volume")]
    for name, source in volumes(settings).items():
        mounts.append(Mount(target=f"/{name}", source=source, type="bind" if source.startswith("/") else "volume"))
    for name, file in keys(settings, need, signs=signs).items():
        mounts.append(Mount(target=key_file(name), source=file, type="bind", read_only=True))
    return mounts
