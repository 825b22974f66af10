"""Temporary folders: what a killed process left is removed by the next one, what a living one uses is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from clinprompt.scratch import ScratchFolder

ROOT = Path(__file__).parents[2]
KILLED = """
import os, sys
from clinprompt.scratch import ScratchFolder
folder = ScratchFolder("model", sys.argv[1])
os.mkdir(os.path.join(folder.name, "half"))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    living = ScratchFolder("model", str(tmp_path))
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    others = [tmp_path / "clinprompt-engine", tmp_path / "clinprompt-payload.other"]
    for other in others:
        other.mkdir()
    assert len(list(tmp_path.glob("clinprompt-model.*"))) == 2

    with ScratchFolder("model", str(tmp_path)) as own:
        assert set(tmp_path.glob("clinprompt-model.*")) == {Path(living.name), Path(own)}
        assert Path(own).stat().st_mode & 0o777 == 0o700
    assert set(tmp_path.iterdir()) == {Path(living.name), *others}


def test_a_link_by_that_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.png").touch()
    (tmp_path / "clinprompt-model.x").symlink_to(tmp_path / "mine")
    with ScratchFolder("model", str(tmp_path)):
        assert (tmp_path / "mine" / "scan.png").exists()


def test_a_folder_goes_when_nobody_holds_it_any_more(tmp_path: Path) -> None:
    folder = ScratchFolder("model", str(tmp_path))
    assert Path(folder.name).is_dir()
    with pytest.warns(ResourceWarning):  # TemporaryDirectory's: it was not closed
        del folder
    assert list(tmp_path.iterdir()) == []
