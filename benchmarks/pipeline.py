"""Time of the main job in a fresh clone, of a second `dvc repro` with nothing changed, and what the second one started.

    python -m benchmarks.pipeline            # and the processor seconds of each stage's command, run again as it was
    python -m benchmarks.pipeline --starts   # of a few commands whose import is most of their time, without a run

The clone holds what is committed. Nothing is downloaded: the packages are those of the environment that runs this.
"""

import argparse
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def repro(folder: Path) -> tuple[float, str]:
    """Run `dvc repro`; returns seconds and what it printed."""
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    completed = subprocess.run(["dvc", "repro"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, completed.stdout


def stage_seconds(output: str) -> dict[str, float]:
    """Seconds inside the components, by stage, from their result lines (without the start of Python)."""
    seconds: dict[str, float] = {}
    for line in re.findall(r'^\{"component".*\}$', output, flags=re.MULTILINE):
        result = json.loads(line)
        seconds[result["component"]] = round(seconds.get(result["component"], 0.0) + result["seconds"], 1)
    return seconds


# Imports that stand for a start: what each stage, a task of Airflow's, or a person who asks the registry waits for.
STARTS = ("components.lock.__main__", "workspace.stage", "registry.__main__")


def processor_seconds(command: list[str], folder: Path, times: int = 1) -> float:
    """User and system time of a command and what it starts, the least of several times."""
    found = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(min(found), 2)


def stages_again(folder: Path) -> dict[str, float]:
    """Processor seconds of each stage's command, on inputs that are there and with outputs that do not change."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    commands = {name: [sys.executable, *shlex.split(entry["cmd"])[1:]] for name, entry in stages.items()}
    return {name: processor_seconds(command, folder) for name, command in commands.items()}


def main() -> None:
    """Clone, run twice, print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", action="store_true", help="the imports alone")
    if parser.parse_args().starts:
        commands = {module: [sys.executable, "-c", f"import {module}"] for module in STARTS}
        print(json.dumps({name: processor_seconds(command, ROOT, 3) for name, command in commands.items()}, indent=2))
        return
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        first, output = repro(clone)
        second, again = repro(clone)
        numbers = {
            "first_seconds": round(first, 1),
            "in_components": stage_seconds(output),
            "second_seconds": round(second, 1),
            "second_started": re.findall(r"Running stage '(\S+)'", again),
            "processor_seconds_of_commands": stages_again(clone),
        }
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
