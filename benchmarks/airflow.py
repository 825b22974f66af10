"""What Airflow costs: per task over the bare component, and over a whole fan-out of candidates on two Celery slots.

    python -m benchmarks.airflow [--epochs N]

Starts the real servers of infra/dev (Postgres, Redis, Ceph's S3, MLflow, Airflow) and runs `retrain` once on
brain-phantom with three methods and three seeds. Then it runs each stage again by hand, as a task does and bare, one
after another. `--epochs` is that of all three trained methods: the longer a training, the less its surroundings matter.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from clinprompt.data.phantom import write_phantom
from components.workspace.task import pack
from infra.dev.servers import Stack

ROOT = Path(__file__).parents[1]
DATASET = "brain-phantom"
RELEASE = "benchmark"
PARTS = ["clinprompt", "components", "dags", "datasets", "registry", "infra/images.lock", "requirements/components.txt"]
PARTS += [".dvcignore", "dvc.yaml", "params.yaml"]
UPSTREAM = {"ingest": [], "validate": ["ingest"], "cache": ["ingest", "validate"], "describe": ["validate"]}
BARE = ("ingest", "validate", "cache", "tune", "evaluate")  # timed one by one


def make_project(folder: Path, epochs: int) -> Path:
    """A copy of the project in which three methods train."""
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, target)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["candidates"] = {"methods": ["zero_shot", "linear_probe", "coop"], "seeds": [1, 2, 3]}
    params["methods"]["coop"]["epochs"] = epochs
    params["airflow"]["python"] = sys.executable
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def call(project: Path, env: dict[str, str], *command: str) -> tuple[float, str]:
    """Seconds and output of a command in the project."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=project, env={**os.environ, **env, "PATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - start, done.stdout


def fan_out(stack: Stack, run: str) -> dict[str, float]:
    """When the candidates' tasks of a run began and ended, and how long each took."""
    tasks = [t for t in stack.airflow.tasks("retrain", run) if t["task_id"].startswith("candidates.")]
    begin = min(datetime.fromisoformat(t["start_date"]) for t in tasks)
    end = max(datetime.fromisoformat(t["end_date"]) for t in tasks)
    return {"seconds": (end - begin).total_seconds(), "tasks": len(tasks)}


def name_of(stage: str, cell: dict[str, Any] | None) -> str:
    """How a stage is called in the table."""
    return f"{stage} {cell['method']}-{cell['seed']}" if cell else stage


def one_stage(
    stack: Stack, run: str, project: Path, clone: Path, cell: dict[str, Any] | None, stage: str
) -> tuple[float, float]:
    """Seconds of a stage as a task runs it, and of its bare command."""
    env, index = stack.env, -1
    plan = stack.airflow.xcom("retrain", run, "plan", key="plan") | {"previous": None}
    if cell is not None:
        index = plan["cells"].index(cell)
    sources = {**UPSTREAM, "tune": ["validate", "describe", "cache"], "evaluate": ["validate", "cache", "tune"]}[stage]
    entries = [
        stack.airflow.xcom("retrain", run, "candidates.tune", map_index=index)
        if name == "tune"
        else stack.airflow.xcom("retrain", run, name)
        for name in sources
    ]
    # Without the run cache, and without an earlier record, the stage has to run.
    task = {"plan": plan, "stage": stage, "cell": cell or {}, "entries": entries, "airflow": {}}
    forget_runs(env)
    as_task, _ = call(
        project, env | {"CLINPROMPT_TASK": pack(task)}, sys.executable, "-m", "components.workspace", "stage"
    )
    address = f"{stage}@{DATASET}" + (f"-{cell['method']}-{cell['seed']}" if cell else "")
    bare_command = yaml.safe_load((clone / "dvc.lock").read_text())["stages"][address]["cmd"]
    for word in bare_command.split():
        if word.startswith(f"runs/{DATASET}/features") and stage == "cache":
            shutil.rmtree(clone / word)
    bare, _ = call(clone, env, "bash", "-c", bare_command)
    return as_task, bare


def forget_runs(env: dict[str, str]) -> None:
    """Empty DVC's run cache in the store."""
    import boto3

    bucket, _, prefix = env["CLINPROMPT_STORE"].removeprefix("s3://").partition("/")
    keys = {"aws_access_key_id": env["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"]}
    s3 = boto3.resource("s3", endpoint_url=env["AWS_ENDPOINT_URL"], region_name=env["AWS_DEFAULT_REGION"], **keys)
    s3.Bucket(bucket).objects.filter(Prefix=f"{prefix}/dvc/runs/").delete()


def main() -> None:
    """Run everything and print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50, help="CoOp's epochs")
    epochs = parser.parse_args().epochs
    scratch = Path(tempfile.mkdtemp(prefix="clinprompt-benchmark-"))
    scratch.chmod(0o711)
    try:
        project = make_project(scratch / "project", epochs)
        settings = {"OMP_NUM_THREADS": "1"}
        with Stack.new(scratch / "servers", dags={"clinprompt": project / "dags"}, settings=settings) as stack:
            print(json.dumps(measure(stack, project, scratch), indent=2))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def measure(stack: Stack, project: Path, scratch: Path) -> dict[str, Any]:
    """One run by Airflow, then its stages one by one."""
    env = stack.env | {"OMP_NUM_THREADS": "1"}
    workspace = [sys.executable, "-m", "components.workspace"]
    write_phantom(scratch / "drawn")
    call(project, env, *workspace, "release", DATASET, str(scratch / "drawn"), "--name", RELEASE)
    stack.airflow.wait_for_dags("retrain", timeout=120)
    stack.airflow.unpause("retrain")
    run = stack.airflow.trigger("retrain", {"dataset": DATASET})
    if stack.airflow.wait_for_run("retrain", run, 3600) != "success":
        raise SystemExit(f"the run failed: {stack.airflow.states('retrain', run)}")
    clone = scratch / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("dags"))
    (clone / ".dvc").mkdir()
    (clone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    call(clone, env, *workspace, "checkout", DATASET)

    cells = stack.airflow.xcom("retrain", run, "plan", key="plan")["cells"]
    work = [(stage, None) for stage in BARE[:3]] + [(stage, cell) for cell in cells for stage in BARE[3:]]
    seconds = {
        f"{stage} {cell['method']}-{cell['seed']}" if cell else stage: one_stage(
            stack, run, project, clone, cell, stage
        )
        for stage, cell in work
    }
    overhead = [as_task - bare for as_task, bare in seconds.values()]
    candidates = sum(bare for name, (_, bare) in seconds.items() if " " in name)
    spread = fan_out(stack, run)
    return {
        "stages_seconds_as_task_and_bare": {name: [round(s, 1) for s in pair] for name, pair in seconds.items()},
        "overhead_median_seconds": round(statistics.median(overhead), 2),
        "fan_out_seconds": round(spread["seconds"], 1),
        "components_seconds_over_two": round(candidates / 2, 1),
        "fan_out_ratio": round(spread["seconds"] / (candidates / 2), 2),
    }


if __name__ == "__main__":
    main()
