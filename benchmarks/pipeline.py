"""Time of the main job in a fresh clone, of a second `dvc repro` with nothing changed, and what the second one started.

    python -m benchmarks.pipeline

The clone holds what is committed. Nothing is downloaded: the packages are those of the environment that runs this.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def main() -> None:
    """Clone, run twice, print the numbers as JSON."""
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
        }
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
