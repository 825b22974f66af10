"""Overhead of Airflow: per task over the bare component, and over a whole fan-out of candidates on two Celery slots.

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

from clinprompt.contract.params_schema import knowledge_of
from clinprompt.contract.tasks import pack
from clinprompt.demo.phantom import write_phantom
from infra.dev.servers import Stack

ROOT = Path(__file__).parents[1]
DATASET = "brain-phantom"
RELEASE = "benchmark"
METHODS = ["biomed_dpt", "biomedcoop", "dvpt"]
SEEDS = [1, 2, 3]
THREADS = {"OMP_NUM_THREADS": "1"}  # a slot has one core
PARTS = ["clinprompt", "components", "dags", "datasets", "registry", "workspace", "infra/images.lock"]
PARTS += ["requirements/components.txt", ".dvcignore", "dvc.yaml", "params.yaml"]
# Timed as a task and bare: a stage, and those that it reads. The trainings are timed bare alone: they take long.
TIMED = {
    "ingest": [],
    "validate": ["ingest"],
    "cache": ["ingest", "validate"],
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
    taught = [method for method in methods if knowledge_of(method, {})]
    params["candidates"] |= {"methods": [m for m in methods if m not in taught], "taught": taught, "seeds": SEEDS}
    params["airflow"]["python"] = sys.executable
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def call(project: Path, env: dict[str, str], *command: str) -> tuple[float, str]:
    """Seconds and output of a command in the project."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **env, **THREADS, "PATH": path}
    start = time.perf_counter()
    completed = subprocess.run(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, completed.stdout


def fan_out(stack: Stack, run: str) -> float:
    """Seconds from the start of the first candidate's task to the end of the last one's."""
    tasks = [t for t in stack.airflow.tasks("retrain", run) if t["task_id"].startswith(("candidates.", "taught."))]
    begin = min(datetime.fromisoformat(t["start_date"]) for t in tasks)
    end = max(datetime.fromisoformat(t["end_date"]) for t in tasks)
    return (end - begin).total_seconds()


def as_task(stack: Stack, run: str, project: Path, stage: str, cell: dict[str, Any] | None) -> float:
    """Seconds of a stage as a task runs it, after a run that has filled the machine's cache."""
    plan = stack.airflow.xcom("retrain", run, "plan", key="plan") | {"previous": None}
    entries = [stack.airflow.xcom("retrain", run, name) for name in TIMED[stage] if name != "tune"]
    if cell:
        tuned = "taught.tune_taught" if cell["taught"] else "candidates.tune"
        alike = [candidate for candidate in plan["candidates"] if candidate["taught"] == cell["taught"]]
        entries.append(stack.airflow.xcom("retrain", run, tuned, map_index=alike.index(cell)))
        stage = of_list(stage, cell)
    # Without the run cache, and without an earlier record, the stage has to run.
    task = {"plan": plan, "stage": stage, "candidate": cell, "entries": entries, "airflow": {}}
    forget_runs(stack.env)
    env = stack.env | {"CLINPROMPT_TASK": pack(task), "CLINPROMPT_CACHE": str(cache_of(project))}
    return call(project, env, sys.executable, "-m", "workspace", "stage")[0]


def bare(stack: Stack, clone: Path, stage: str, cell: dict[str, Any] | None) -> float:
    """Seconds of a stage's command alone, in a clone that has what it reads."""
    address = f"{stage}@{DATASET}"
    if cell:
        address = f"{of_list(stage, cell)}@{DATASET}-{cell['candidate']}-{cell['seed']}"
    command = yaml.safe_load((clone / "dvc.lock").read_text())["stages"][address]["cmd"]
    for word in command.split():
        if word.startswith(f"runs/{DATASET}/features") and stage == "cache":
            shutil.rmtree(clone / word)
    return call(clone, stack.env, "bash", "-c", command)[0]


def of_list(stage: str, cell: dict[str, Any]) -> str:
    """The stage's name for a candidate: those that are taught have stages of their own."""
    return f"{stage}_taught" if cell["taught"] else stage


def cache_of(project: Path) -> Path:
    """The cache folder that the tasks of a machine share."""
    return project.with_name("cache")


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
        settings = THREADS | {"CLINPROMPT_CACHE": str(cache_of(project))}
        with Stack.new(scratch / "servers", dags={"clinprompt": project / "dags"}, settings=settings) as stack:
            print(json.dumps(measure(stack, project, scratch), indent=2))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def measure(stack: Stack, project: Path, scratch: Path) -> dict[str, Any]:
    """One run by Airflow, then its stages one by one."""
    env = stack.env
    workspace = [sys.executable, "-m", "workspace"]
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
        cell
        for cell in stack.airflow.xcom("retrain", run, "plan", key="plan")["candidates"]
        if cell["seed"] == SEEDS[0]
    ]
    tune = {cell["candidate"]: bare(stack, clone, "tune", cell) for cell in cells}
    jobs = [(stage, None) for stage in TIMED if stage != "evaluate"] + [("evaluate", cell) for cell in cells]
    timings = {
        f"{stage} {cell['candidate']}" if cell else stage: (
            as_task(stack, run, project, stage, cell),
            bare(stack, clone, stage, cell),
        )
        for stage, cell in jobs
    }
    evaluate = sum(seconds for name, (_, seconds) in timings.items() if " " in name)
    fair_share = len(SEEDS) * (sum(tune.values()) + evaluate) / 2
    fan_out_seconds = fan_out(stack, run)
    return {
        "stages_seconds_as_task_and_bare": {name: [round(s, 1) for s in pair] for name, pair in timings.items()},
        "tune_seconds_bare": {method: round(seconds, 1) for method, seconds in tune.items()},
        "overhead_median_seconds": round(
            statistics.median(task_seconds - bare_seconds for task_seconds, bare_seconds in timings.values()), 2
        ),
        "fan_out_seconds": round(fan_out_seconds, 1),
        "components_seconds_over_two": round(fair_share, 1),
        "fan_out_ratio": round(fan_out_seconds / fair_share, 2),
    }


if __name__ == "__main__":
    main()
