"""What Airflow costs: per task over the bare component, and over a whole fan-out of candidates on two Celery slots.

    python -m benchmarks.airflow [--methods A B C]

Starts the real servers of infra/dev (Postgres, Redis, Ceph's S3, MLflow, Airflow) and runs `retrain` once on
brain-phantom with three methods and three seeds. Then it runs stages again by hand, as a task does and bare, one after
another; of each method only the first seed, since all take the same steps. The longer a training, the less its
surroundings matter: the default methods take a minute or two with their published epochs.
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
METHODS = ["biomed_dpt", "biomedcoop", "cocoop"]
SEEDS = [1, 2, 3]
THREADS = {"OMP_NUM_THREADS": "1"}  # a slot has one core
PARTS = ["clinprompt", "components", "dags", "datasets", "registry", "infra/images.lock", "requirements/components.txt"]
PARTS += [".dvcignore", "dvc.yaml", "params.yaml"]
# Timed one by one: a stage, and those that it reads.
COMMON = {"ingest": [], "validate": ["ingest"], "cache": ["ingest", "validate"]}
OF_A_CANDIDATE = {
    "tune": ["ingest", "validate", "describe", "cache"],
    "evaluate": ["ingest", "validate", "cache", "tune"],
}


def make_project(folder: Path, methods: list[str]) -> Path:
    """A copy of the project in which these methods compete."""
    for part in PARTS:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, target)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["candidates"] = {"methods": methods, "seeds": SEEDS}
    params["airflow"]["python"] = sys.executable
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def call(project: Path, env: dict[str, str], *command: str) -> tuple[float, str]:
    """Seconds and output of a command in the project."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **env, **THREADS, "PATH": path}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def fan_out(stack: Stack, run: str) -> float:
    """Seconds from the start of the first candidate's task to the end of the last one's."""
    tasks = [t for t in stack.airflow.tasks("retrain", run) if t["task_id"].startswith("candidates.")]
    begin = min(datetime.fromisoformat(t["start_date"]) for t in tasks)
    end = max(datetime.fromisoformat(t["end_date"]) for t in tasks)
    return (end - begin).total_seconds()


def one_stage(
    stack: Stack, run: str, project: Path, clone: Path, stage: str, cell: dict[str, Any] | None = None
) -> tuple[float, float]:
    """Seconds of a stage as a task runs it, and of its bare command."""
    env = stack.env
    plan = stack.airflow.xcom("retrain", run, "plan", key="plan") | {"previous": None}
    entries = [
        stack.airflow.xcom("retrain", run, "candidates.tune", map_index=plan["cells"].index(cell))
        if name == "tune"
        else stack.airflow.xcom("retrain", run, name)
        for name in (OF_A_CANDIDATE if cell else COMMON)[stage]
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
    parser.add_argument("--methods", nargs="+", default=METHODS, help="default: %(default)s")
    methods = parser.parse_args().methods
    scratch = Path(tempfile.mkdtemp(prefix="clinprompt-benchmark-"))
    scratch.chmod(0o711)
    try:
        project = make_project(scratch / "project", methods)
        settings = THREADS | {"CLINPROMPT_CACHE": str(scratch / "cache")}
        with Stack.new(scratch / "servers", dags={"clinprompt": project / "dags"}, settings=settings) as stack:
            print(json.dumps(measure(stack, project, scratch), indent=2))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def measure(stack: Stack, project: Path, scratch: Path) -> dict[str, Any]:
    """One run by Airflow, then its stages one by one."""
    env = stack.env
    workspace = [sys.executable, "-m", "components.workspace"]
    write_phantom(scratch / "drawn")
    call(project, env, *workspace, "release", DATASET, str(scratch / "drawn"), "--name", RELEASE)
    stack.airflow.wait_for_dags("retrain", timeout=120)
    stack.airflow.unpause("retrain")
    run = stack.airflow.trigger("retrain", {"dataset": DATASET})
    if stack.airflow.wait_for_run("retrain", run, 7200) != "success":
        raise SystemExit(f"the run failed: {stack.airflow.states('retrain', run)}")
    clone = scratch / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("dags"))
    (clone / ".dvc").mkdir()
    (clone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    call(clone, env, *workspace, "checkout", DATASET)

    cells = [
        cell for cell in stack.airflow.xcom("retrain", run, "plan", key="plan")["cells"] if cell["seed"] == SEEDS[0]
    ]
    work = [(stage, None) for stage in COMMON] + [(stage, cell) for cell in cells for stage in OF_A_CANDIDATE]
    seconds = {
        f"{stage} {cell['method']}" if cell else stage: one_stage(stack, run, project, clone, stage, cell)
        for stage, cell in work
    }
    half = len(SEEDS) * sum(bare for name, (_, bare) in seconds.items() if " " in name) / 2
    spread = fan_out(stack, run)
    return {
        "stages_seconds_as_task_and_bare": {name: [round(s, 1) for s in pair] for name, pair in seconds.items()},
        "overhead_median_seconds": round(statistics.median(as_task - bare for as_task, bare in seconds.values()), 2),
        "fan_out_seconds": round(spread, 1),
        "components_seconds_over_two": round(half, 1),
        "fan_out_ratio": round(spread / half, 2),
    }


if __name__ == "__main__":
    main()
