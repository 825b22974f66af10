"""The docker runner's requests to the engine, which is replaced at its API."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("docker", reason="the docker provider is not installed")


class Engine:
    """A container engine that remembers; its containers end at once with a given code and output."""

    def __init__(self, left: dict[str, Any] | None = None, code: int = 0, out: bytes = b'{"releases": []}\n') -> None:
        self.left = left
        self.code = code
        self.out = out
        self.has_image = True
        self.pulling: list[dict[str, str]] = [{"status": "Downloaded"}]
        self.created: dict[str, Any] = {}
        self.done: list[str] = []

    def inspect_image(self, name: str) -> dict[str, Any]:
        from docker.errors import ImageNotFound

        if not self.has_image:
            raise ImageNotFound("no such image")
        return {"Id": name}

    def pull(self, name: str, **options: Any) -> Any:
        self.done.append(f"pull {name}")
        return iter(self.pulling)

    def create_host_config(self, **options: Any) -> dict[str, Any]:
        return options

    def create_container(self, **options: Any) -> dict[str, Any]:
        self.created = options
        return {"Id": "new"}

    def inspect_container(self, name: str) -> dict[str, Any]:
        from docker.errors import NotFound

        if self.left is None:
            raise NotFound("no such container")
        return {"Id": "left", **self.left}

    def logs(self, container: str, *, stdout: bool, stderr: bool, **options: Any) -> Any:
        assert stdout != stderr
        if stdout:
            return self.out
        assert options == {"stream": True, "follow": True}
        self.done.append(f"follow {container}")
        return iter([b"half a ", b"line\nand", b" one"])

    def start(self, container: str) -> None:
        self.done.append(f"start {container}")

    def wait(self, container: str) -> dict[str, int]:
        return {"StatusCode": self.code}

    def stop(self, container: str, timeout: int) -> None:
        self.done.append(f"stop {container}")

    def remove_container(self, container: str, *, force: bool, v: bool) -> None:
        assert force
        assert v
        self.done.append(f"remove {container}")


def make(project: Path, engine: Engine, need: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A task of the docker runner on a fake engine."""
    from dataclasses import replace

    from clinprompt_dags.commands import SweepCommand
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.graph import Need
    from clinprompt_dags.runners.docker import DockerTask

    settings = replace(load_settings(project), **changes)
    task = DockerTask(
        task_id="look", task_command=SweepCommand(), need=Need("vision", **(need or {})), settings=settings
    )
    task.hook = SimpleNamespace(api_client=engine, client_created=True)
    return task


CONTEXT = {
    "ti": SimpleNamespace(dag_id="sweep", run_id="manual__2026-01-01T00:00:00+00:00", task_id="g.look", map_index=3)
}


def call(count: str = "1") -> Any:
    """A call with a secret."""
    from clinprompt_dags.task import Call

    plain = {"CLINPROMPT_TASK": "x", "CLINPROMPT_MICRO_BATCHES": count}
    return Call(["-m", "workspace", "sweep"], {"a": 1}, plain, {"AWS_SECRET_ACCESS_KEY": "hush"})


def test_the_container_has_no_more_than_it_needs(project: Path) -> None:
    from clinprompt_dags.runners.containers import SCRATCH

    engine = Engine()
    task = make(project, engine, {"cpu": 2, "memory": "4Gi", "gpu": "optional"}, network="clinprompt")
    assert task.run_component(call(), CONTEXT) == {"releases": []}
    made, host = engine.created, engine.created["host_config"]
    assert made["image"] == f"clinprompt-vision@sha256:{'0' * 64}"
    assert made["command"] == ["python", "-m", "workspace", "sweep"]
    assert made["user"] == "10001:10001"
    assert made["environment"].items() >= call().private.items()
    assert made["environment"]["CLINPROMPT_SCRATCH"] == SCRATCH
    assert "hush" not in json.dumps([task.environment, task.command, task.labels])
    assert (host["mem_limit"], host["cpu_shares"], host["network_mode"]) == (4 << 30, 2048, "clinprompt")
    assert host["read_only"] is True
    assert set(host["tmpfs"]) == {"/tmp"}  # noqa: S108
    assert (host["cap_drop"], host["security_opt"]) == (["ALL"], ["no-new-privileges"])
    assert [mount["Target"] for mount in host["mounts"]] == [SCRATCH]
    assert host["device_requests"] is None
    assert not any("docker.sock" in str(mount) for mount in host["mounts"])
    assert task.mount_tmp_dir is task.retrieve_output is False
    assert engine.done == ["start new", "follow new", "remove new"]


@pytest.mark.parametrize(("cpu", "workers", "threads"), [(4, "", "4"), (0.5, "", "1"), (4, "1", "1")])
def test_numeric_libraries_start_as_many_threads_as_the_component_has_cpus(
    project: Path, monkeypatch: pytest.MonkeyPatch, cpu: float, workers: str, threads: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", workers)
    engine = Engine()
    make(project, engine, {"cpu": cpu}).run_component(call(), CONTEXT)
    assert engine.created["environment"]["OMP_NUM_THREADS"] == threads


def test_a_gpu_is_asked_for_when_it_is_needed_or_allowed(project: Path) -> None:
    for gpu, allowed, expected in [
        ("required", False, True),
        ("optional", True, True),
        ("optional", False, False),
        ("none", True, False),
    ]:
        task = make(project, Engine(), {"gpu": gpu}, gpu=allowed)
        assert bool(task.device_requests) is expected


@pytest.mark.parametrize("name", ["weights", "cache"])
def test_what_stays_on_the_node_is_mounted(project: Path, name: str) -> None:
    for source, kind in (("kept", "volume"), ("/srv/kept", "bind")):
        engine = Engine()
        make(project, engine, **{name: source}).run_component(call(), CONTEXT)
        mount = engine.created["host_config"]["mounts"][1]
        assert (mount["Type"], mount["Source"], mount["Target"]) == (kind, source, f"/{name}")
        assert engine.created["environment"][f"CLINPROMPT_{name.upper()}"] == f"/{name}"


def test_the_name_is_the_task_instances_and_not_the_tries(project: Path) -> None:
    from clinprompt_dags.runners.docker import container_name

    first = container_name(SimpleNamespace(**vars(CONTEXT["ti"]), try_number=1))
    again = container_name(SimpleNamespace(**vars(CONTEXT["ti"]), try_number=2))
    other = container_name(SimpleNamespace(**{**vars(CONTEXT["ti"]), "map_index": 4}))
    assert first == again != other
    assert first.startswith("clinprompt-sweep-g.look-3-")


def labels(digest: str) -> dict[str, Any]:
    """What an engine tells of a container's labels."""
    return {"Labels": {"clinprompt.task": digest}}


@pytest.mark.parametrize(
    ("state", "same", "adopted"),
    [
        ({"Running": True}, True, True),
        ({"Running": False, "Status": "exited", "ExitCode": 0}, True, True),
        ({"Running": False, "Status": "exited", "ExitCode": 137}, True, False),
        ({"Running": True}, False, False),
    ],
)
def test_what_a_killed_worker_has_left_is_adopted_or_removed(
    project: Path, state: dict[str, Any], same: bool, adopted: bool
) -> None:
    digest = call().digest if same else call("2").digest
    engine = Engine({"State": state, "Config": labels(digest)})
    assert make(project, engine).run_component(call(), CONTEXT) == {"releases": []}
    if adopted:
        assert engine.done == ["follow left", "remove left"]
    else:
        assert engine.done == ["remove left", "start new", "follow new", "remove new"]


def test_the_exit_code_decides(project: Path) -> None:
    from clinprompt_dags.failures import TaskInterrupted, TaskOutOfMemory

    answer = b'{"status": "failed", "exit_code": 72, "message": "too large"}\n'
    engine = Engine(code=72, out=answer)
    with pytest.raises(TaskOutOfMemory, match=r"exit code 72 \(GPU out of memory\): too large") as caught:
        make(project, engine).run_component(call(), CONTEXT)
    assert caught.value.tail == ["half a line", "and one"]
    assert engine.done[-1] == "remove new"
    with pytest.raises(TaskInterrupted, match="killed"):
        make(project, Engine(code=137, out=b"")).run_component(call(), CONTEXT)


def test_an_image_is_pulled_where_it_is_missing(project: Path) -> None:
    from clinprompt_dags.failures import ServiceUnavailable

    engine = Engine()
    engine.has_image = False
    assert make(project, engine).run_component(call(), CONTEXT) == {"releases": []}
    pulled = f"pull clinprompt-vision@sha256:{'0' * 64}"
    assert engine.done == [pulled, "start new", "follow new", "remove new"]
    engine.pulling = [{"status": "Pulling"}, {"error": "no such host"}]
    engine.done.clear()
    with pytest.raises(ServiceUnavailable, match=r"has no image clinprompt-vision@.* cannot pull it \(no such host\)"):
        make(project, engine).run_component(call(), CONTEXT)
    assert engine.done == [pulled]


def test_a_stopped_task_stops_its_container(project: Path) -> None:
    engine = Engine()
    task = make(project, engine)
    task.on_kill()
    assert engine.done == []
    task.container = {"Id": "new"}
    task.on_kill()
    assert engine.done == ["stop new", "remove new"]


def test_the_key_of_the_patients_ids_goes_into_containers_as_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from clinprompt_dags.environment import services

    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", "hush" * 10)
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", "/of/the/worker")
    plain, private = services()
    assert private["CLINPROMPT_PATIENT_KEY"] == "hush" * 10
    assert "hush" not in json.dumps(plain)
    assert "/of/the/worker" not in json.dumps([plain, private])


KEYS_OF = {
    "promote": {"signing", "verification"},
    "rollback": {"verification"},
    "gate": {"verification"},
    "tune": set(),
}


@pytest.mark.parametrize("name", list(KEYS_OF))
def test_only_a_container_that_promotes_gets_the_signing_key(project: Path, name: str) -> None:
    from dataclasses import replace

    from clinprompt_dags.commands import RollbackCommand, StageCommand, TaskCommand
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.entries import FromTasks
    from clinprompt_dags.graph import load_graph
    from clinprompt_dags.runners.docker import DockerTask

    settings, engine = replace(load_settings(project), signing="/etc/s.pem", verification="/etc/v.pem"), Engine()
    need = load_graph(project)["promote" if name == "rollback" else name].need
    command: TaskCommand = RollbackCommand() if name == "rollback" else StageCommand(name, FromTasks(()))
    task = DockerTask(task_id=name, task_command=command, need=need, settings=settings)
    task.hook = SimpleNamespace(api_client=engine, client_created=True)
    task.run_component(call(), CONTEXT)
    mounts = {m["Target"]: m for m in engine.created["host_config"]["mounts"] if m["Target"].startswith("/keys/")}
    assert mounts.keys() == {f"/keys/{key}/{key}.pem" for key in KEYS_OF[name]}
    assert all(mount["ReadOnly"] for mount in mounts.values())
    told = {value for value in engine.created["environment"].values() if value.startswith("/keys/")}
    assert told == mounts.keys()


def test_the_login_of_the_promoter_goes_to_who_promotes(monkeypatch: pytest.MonkeyPatch) -> None:
    from clinprompt_dags.environment import local_environment, services

    monkeypatch.setenv("CLINPROMPT_JOURNAL", "s3://registry/journal")
    for name, user in (("MLFLOW", "training"), ("PROMOTER_MLFLOW", "promoter")):
        monkeypatch.setenv(f"AIRFLOW_CONN_CLINPROMPT_{name}", f"http://{user}:hush-{user}@mlflow:5000")
    plain, private = services()
    assert (plain["MLFLOW_TRACKING_USERNAME"], private["MLFLOW_TRACKING_PASSWORD"]) == ("training", "hush-training")
    assert "CLINPROMPT_JOURNAL" not in plain
    plain, private = services(promotes=True)
    assert (plain["MLFLOW_TRACKING_USERNAME"], private["MLFLOW_TRACKING_PASSWORD"]) == ("promoter", "hush-promoter")
    assert plain["CLINPROMPT_JOURNAL"] == "s3://registry/journal"
    environ = {"CLINPROMPT_SIGNING_KEY": "/s", "CLINPROMPT_JOURNAL": "s3://j", "CLINPROMPT_VERIFICATION_KEY": "/v"}
    assert local_environment(environ, promotes=False, signs=False).keys() == {"CLINPROMPT_VERIFICATION_KEY"}
    assert local_environment(environ, promotes=True, signs=False).keys() == environ.keys() - {"CLINPROMPT_SIGNING_KEY"}
    assert local_environment(environ, promotes=True, signs=True) == environ
