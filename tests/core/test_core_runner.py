"""What every component does around its work: exit codes, atomic outputs, one result line."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clinprompt.errors import DataRejected, ServiceDown
from clinprompt.params import CacheParams, GateParams
from components.runner import Job, Work, execute

ROOT = Path(__file__).parents[2]
INTERFACE = """
name: copy
about: Copies a file.
inputs:
  text: {about: what to copy}
outputs:
  copy: {about: the copy}
params: [cache]
image: data
resources: {cpu: 1, memory: 1Gi}
timeout_minutes: 5
exit_codes: [0, 65]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the component and no lock of sources, which would know nothing of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "component.yaml").write_text(INTERFACE)
    (tmp_path / "in.txt").write_text("hello")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def call(folder: Path, work: Work, *more: str, text: str = "in.txt") -> int:
    paths = ["--text", str(folder / text), "--copy", str(folder / "out.txt"), "--params", str(folder / "params.yaml")]
    return execute("copy", work, [*paths, *more], folder)


def copy(job: Job) -> dict[str, Any]:
    job.outputs["copy"].write_text(job.inputs["text"].read_text())
    return {"batch": job.params(CacheParams).batch_size}


def fail_with(error: BaseException) -> Work:
    def work(job: Job) -> dict[str, Any]:
        job.outputs["copy"].write_text("half")
        raise error

    return work


def test_success_publishes_and_prints_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, copy) == 0
    assert (folder / "out.txt").read_text() == "hello"
    line = json.loads(capsys.readouterr().out)
    assert line["component"] == "copy"
    assert line["status"] == "ok"
    assert line["batch"] == 64


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (DataRejected("row 3 is bad."), 65, "row 3 is bad."),
        (ServiceDown("no answer."), 69, "no answer."),
        (KeyboardInterrupt(), 75, "run the same command again"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 75, "the disk is full: x; free some space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 75, "the disk is full; free some space"),
        (RuntimeError("I/O error: File too large (os error 27)"), 75, "a file would become larger than is allowed"),
        (OSError(errno.EFBIG, "File too large", "x"), 75, "larger than is allowed: x; raise the limit (`ulimit`)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 75, "the memory is too small"),
        (MemoryError(), 75, "the memory is too small"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 66, "permission denied: x; give this user the right"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 66, "the file system is read-only: x; choose another"),
        (OSError(errno.ELOOP, "Too many levels", "x"), 66, "links that point at each other: x"),
        (RuntimeError("Symlink loop from 'x'"), 66, "links that point at each other (Symlink loop from 'x'); remove"),
        (FileExistsError(errno.EEXIST, "File exists", "x"), 66, "a file where a folder is expected: x; move it away"),
        (OSError(errno.ENOLCK, "No locks available", "x"), 66, "the file system has no locks: x; choose another"),
        (OSError(errno.EBUSY, "Device or resource busy", "x"), 75, "a file or folder is in use: x; run the same"),
        (OSError(errno.ESTALE, "Stale file handle", "x"), 75, "a network folder was mounted anew: x; run the same"),
        (OSError("(sqlite3.OperationalError) disk I/O error"), 75, "the disk can't be read or written; look at"),
        (ZeroDivisionError("oops"), 70, "ZeroDivisionError: oops"),
    ],
)
def test_a_failure_gives_its_code_one_sentence_and_no_output(
    folder: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str
) -> None:
    assert call(folder, fail_with(error)) == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == code
    assert sentence in printed.err
    assert sorted(p.name for p in folder.iterdir()) == ["copy", "in.txt", "params.yaml"]


def test_the_evidence_of_a_rejection_is_kept(folder: Path) -> None:
    assert call(folder, fail_with(DataRejected("bad.", publish=True))) == 65
    assert (folder / "out.txt").read_text() == "half"


def test_leftovers_of_a_killed_run_are_removed(folder: Path) -> None:
    (folder / ".out.txt.partial").mkdir()
    assert call(folder, copy) == 0
    assert (folder / "out.txt").read_text() == "hello"


def test_a_missing_input_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, copy, text="none.txt") == 66
    assert "none.txt does not exist" in capsys.readouterr().err


def test_an_unknown_option_is_a_bad_param(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, copy, "--colour", "red") == 64
    assert "unrecognized arguments: --colour" in capsys.readouterr().err


def test_params_that_the_interface_does_not_declare_are_out_of_reach(folder: Path) -> None:
    assert call(folder, lambda job: {"x": job.params(GateParams)}) == 70


def test_an_unknown_key_in_the_interface_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "copy" / "component.yaml").write_text(INTERFACE + "colour: red\n")
    assert call(folder, copy) == 64
    assert "component.yaml: colour: no such key" in capsys.readouterr().err
