"""The real servers for tests: one stack for all of them, started once."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.dev.servers import Stack, missing

SMOKE_DAG = """
from airflow.sdk import dag, task


@dag(schedule=None)
def smoke():
    @task
    def double(number: int) -> int:
        return 2 * number

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    total(double.expand(number=[1, 2, 3]))


smoke()
"""
APPROVAL_DAG = """
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Asset, PartitionedAssetTimetable, dag, task


@dag(schedule=PartitionedAssetTimetable(assets=Asset("smoke")))
def smoke_approval():
    @task
    def partition(dag_run=None) -> str:
        return dag_run.partition_key

    ApprovalOperator(task_id="approve", subject="Go on?") >> partition()


smoke_approval()
"""


def running_stack(dags: Path, settings: dict[str, str]) -> Iterator[Stack]:
    """A running stack with the project's DAGs and two of its own; CLINPROMPT_STACK_KEEP=1 keeps its folder."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("the tests on real servers share one stack and run one after another: make test-servers")
    lacking = missing(settings)
    if lacking:
        pytest.skip(lacking)
    folder = Path(tempfile.mkdtemp(prefix="clinprompt-stack-"))
    folder.chmod(0o711)  # Postgres runs as another user; pytest's own folders would not let it in
    (folder / "dags").mkdir()
    (folder / "dags" / "smoke.py").write_text(SMOKE_DAG)
    (folder / "dags" / "smoke_approval.py").write_text(APPROVAL_DAG)
    bundles = {"clinprompt": dags, "smoke": folder / "dags"}
    try:
        with Stack.new(folder / "servers", dags=bundles, settings=settings) as running:
            yield running
    finally:
        if "CLINPROMPT_STACK_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


def finished(stack: Stack, dag_id: str, run_id: str, timeout: float = 300) -> dict[str, str | None]:
    """Wait for a run to succeed; returns the states of its tasks."""
    stack.airflow.unpause(dag_id)
    state = stack.airflow.wait_for_run(dag_id, run_id, timeout)
    assert state == "success", stack.airflow.failures(dag_id, run_id)
    return stack.airflow.states(dag_id, run_id)
