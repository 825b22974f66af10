"""A process of one command starts and ends with less work, and loses nothing by it."""

import subprocess
import sys
from pathlib import Path

CODE = """
import atexit, gc, pathlib, sys, tempfile
from clinprompt.process import short_lived

short_lived()
atexit.register(print, "the end has come", flush=True)
scratch = tempfile.TemporaryDirectory(dir=sys.argv[1])


class Tensor:
    def __init__(self):
        self.me = self

    def __del__(self):
        print("collected", self.name)


young = Tensor()
young.name = "young"
del young
kept = [[] for _ in range(gc.get_threshold()[0] + 1)]
old = Tensor()
old.name = "old"
print("working")
"""


def test_what_is_young_is_collected_and_what_is_registered_for_the_end_happens(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["collected young", "working", "the end has come"]
    assert list(tmp_path.iterdir()) == []
