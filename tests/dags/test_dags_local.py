"""The local runner: what it shows of the component, and that nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

_TASK = """
import os, sys
sys.path.append(sys.argv[1])
from clinprompt_dags.config import load_settings
from clinprompt_dags.graph import Need
from clinprompt_dags.runners.local import LocalTask
from clinprompt_dags.task import Call
task = LocalTask(task_id="look", task_command=None, need=Need("data"), settings=load_settings())
task.run_component(Call(["-m", "workspace", "sweep"], {}), {})
"""


@pytest.fixture
def runner(project: Path, components: Any) -> Any:
    """A task of the local runner."""
    from clinprompt_dags.config import load_settings
    from clinprompt_dags.graph import Need
    from clinprompt_dags.runners.local import LocalTask

    return LocalTask(task_id="look", task_command=None, need=Need("data"), settings=load_settings(project))


def call() -> Any:
    """A sweep."""
    from clinprompt_dags.task import Call

    return Call(["-m", "workspace", "sweep"], {}, {"CLINPROMPT_TASK": ""})


def test_the_result_is_the_last_line_and_the_rest_is_the_log(
    runner: Any, components: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert runner.run_component(call(), {}) == {"releases": ["brain-phantom@r1", "brain-phantom@r2"]}
    assert "sweep line 1" in capsys.readouterr().out + caplog.text


def test_a_failure_carries_the_last_lines(runner: Any, components: Any) -> None:
    from clinprompt_dags.failures import Final, TaskInterrupted

    components.answer({"sweep": [{"exit": 66, "lines": 30}, {"kill": int(signal.SIGKILL)}]})
    with pytest.raises(Final, match=r"exit code 66 \(input missing\): sweep said 66") as caught:
        runner.run_component(call(), {})
    assert caught.value.tail == [f"sweep line {number}" for number in range(10, 30)]
    with pytest.raises(TaskInterrupted, match="signal 9"):
        runner.run_component(call(), {})


def test_a_missing_interpreter_is_named(runner: Any) -> None:
    from dataclasses import replace

    from clinprompt_dags.failures import ComponentFailed

    runner.settings = replace(runner.settings, python=Path("/nowhere/python"))
    with pytest.raises(ComponentFailed, match=r"airflow.python in params.yaml: /nowhere/python cannot be started"):
        runner.run_component(call(), {})


def test_stopping_the_task_stops_the_component(project: Path, components: Any) -> None:
    components.answer({"sweep": [{"sleep": 600}]})
    pid = start(project, signal.SIGTERM)
    assert gone(pid)


def test_a_killed_supervisor_takes_the_component_with_it(project: Path, components: Any) -> None:
    components.answer({"sweep": [{"sleep": 600}]})
    pid = start(project, signal.SIGKILL)
    assert gone(pid)


def start(project: Path, number: signal.Signals) -> int:
    """Start a task in a process of its own, send it a signal, and return the component's process id."""
    task = subprocess.Popen([sys.executable, "-c", _TASK, str(project / "dags")], stderr=subprocess.DEVNULL)
    while True:
        children = Path(f"/proc/{task.pid}/task/{task.pid}/children").read_text(encoding="utf-8").split()
        if children and (project / "calls.jsonl").read_text(encoding="utf-8"):
            break
        assert task.poll() is None
        time.sleep(0.1)
    os.kill(task.pid, number)
    task.wait()
    return int(children[0])


def gone(pid: int) -> bool:
    """Whether a process ends."""
    for _ in range(600):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False
