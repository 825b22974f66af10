"""What a run writes is for this user alone, unless CLINPROMPT_UMASK says otherwise."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from components.lock.__main__ import work as lock
from components.runner import Job, execute

ROOT = Path(__file__).parents[2]
INTERFACE = """
name: write
about: Writes a file and a folder.
outputs:
  file: {about: a file}
  folder: {about: a folder, kind: folder}
image: data
resources: {cpu: 1, memory: 1Gi}
timeout_minutes: 5
exit_codes: [0, 64]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a component, on a system where others may read new files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLINPROMPT_UMASK", raising=False)
    (tmp_path / "write").mkdir()
    (tmp_path / "write" / "component.yaml").write_text(INTERFACE)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def write(job: Job) -> dict[str, Any]:
    job.outputs["file"].write_text("patients")
    job.outputs["folder"].mkdir()
    (job.outputs["folder"] / "one").write_text("patient")
    return {}


def written(place: Path, code: int = 0) -> dict[str, str]:
    """The modes of what the component writes, after a look that the process has its own umask back."""
    before = os.umask(0o022)
    try:
        assert execute("write", write, ["--file", "runs/a/file", "--folder", "runs/a/folder"], place) == code
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    return {path.relative_to(place).as_posix(): mode(path) for path in sorted((place / "runs").rglob("*"))}


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def test_others_can_read_nothing_that_a_component_writes(place: Path) -> None:
    modes = {"runs/a": "700", "runs/a/file": "600", "runs/a/folder": "700", "runs/a/folder/one": "600"}
    assert written(place) == modes
    assert mode(place / "runs") == "700"


def test_a_group_can_be_let_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINPROMPT_UMASK", "027")
    modes = {"runs/a": "750", "runs/a/file": "640", "runs/a/folder": "750", "runs/a/folder/one": "640"}
    assert written(place) == modes


@pytest.mark.parametrize("text", ["private", "8", "-1", "277", "0100", " 27", "2_7", "0o27"])
def test_a_senseless_umask_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setenv("CLINPROMPT_UMASK", text)
    assert written(place, 64) == {}
    message = json.loads(capsys.readouterr().out)["message"]
    assert f"CLINPROMPT_UMASK must be an octal number from 000 to 077, as 027, found {text!r}" in message


def test_each_repro_closes_the_folders_that_dvc_has_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINPROMPT_UMASK", raising=False)
    for name in ("params.yaml", "components", "clinprompt", "datasets", "registry", "requirements", "infra"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", ".dvc/cache", ".dvc/tmp"):
        Path(folder).mkdir(parents=True)
        Path(folder).chmod(0o755)
    outputs = ["--sources", "sources.lock", "--settings", "runs/settings.lock"]
    monkeypatch.setenv("CLINPROMPT_UMASK", "022")
    assert execute("lock", lock, outputs, ROOT / "components") == 0
    assert mode(Path("runs")) == mode(Path(".dvc/cache")) == "755"
    monkeypatch.delenv("CLINPROMPT_UMASK")
    Path("sources.lock").unlink()
    assert execute("lock", lock, outputs, ROOT / "components") == 0
    assert mode(Path("runs")) == mode(Path(".dvc/cache")) == "700"
    assert mode(Path("sources.lock")) == mode(ROOT / "components/lock/__main__.py")  # it belongs to the code
    assert mode(Path(".dvc/tmp")) == "755"
    Path(".dvc/cache").rmdir()
    assert execute("lock", lock, outputs, ROOT / "components") == 0
    assert mode(Path(".dvc/cache")) == "700"  # before DVC itself makes it
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    outputs[3] = str(shared / "settings.lock")
    assert execute("lock", lock, outputs, ROOT / "components") == 0
    assert shared.stat().st_mode & 0o7777 == 0o1777  # everybody's, as /tmp is
