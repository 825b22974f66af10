"""What a kill or a flipped byte leaves: the component that would read it says so, one command mends it; real DVC."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components import mend
from components.runner import Job, execute

ROOT = Path(__file__).parents[2]
INTERFACE = """
name: {name}
about: Copies what it reads.
inputs:
  text: {{about: what to copy}}
  notes: {{about: what lies beside it, kind: folder}}
outputs:
  copy: {{about: the copy}}
params: [cache]
image: data
resources: {{cpu: 1, memory: 1Gi}}
timeout_minutes: 5
exit_codes: [0, 67]
"""
GRAPH = """
stages:
  first:
    cmd: mkdir -p runs/notes && printf hello > runs/text && printf x > runs/notes/x && printf y > runs/notes/y
    outs: [runs/text, runs/notes]
  second:
    cmd: {python} {root}/copies.py --text runs/text --notes runs/notes --copy runs/copy
    deps: [runs/text, runs/notes]
    params: [cache]
    outs: [runs/copy]
"""
COPIES = """
import sys
from pathlib import Path
sys.path.insert(0, {project!r})
from components.runner import execute

def copy(job):
    job.outputs["copy"].write_text(job.inputs["text"].read_text())
    return {{}}

sys.exit(execute("copies", copy, sys.argv[1:], Path(__file__).parent))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two stages that has run once."""
    folder = tmp_path_factory.mktemp("mend")
    (folder / "copies").mkdir()
    (folder / "copies" / "component.yaml").write_text(INTERFACE.format(name="copies"))
    (folder / "copies.py").write_text(COPIES.format(project=str(ROOT)))
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / ".dvcignore", folder)
    (folder / "dvc.yaml").write_text(GRAPH.format(python=sys.executable, root="."))
    assert dvc(folder, "init", "-q", "--no-scm").returncode == 0
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory as if DVC ran a stage there."""
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_STAGE", "second")
    monkeypatch.delenv("CLINPROMPT_TASK", raising=False)
    return tmp_path / "copy"


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"} | {"DVC_NO_ANALYTICS": "1"}
    command = [str(Path(sys.executable).parent / "dvc"), *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def second(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What the second stage's command ends with and says."""

    def copy(job: Job) -> dict[str, str]:
        job.outputs["copy"].write_text("again")
        return {}

    paths = ["--text", "runs/text", "--notes", "runs/notes", "--copy", "runs/copy"]
    code = execute("copies", copy, paths, Path())
    return code, str(json.loads(capsys.readouterr().out).get("message", ""))


def cached(name: str) -> Path:
    """The object of an output in DVC's cache."""
    stages = yaml.safe_load(Path("dvc.lock").read_text())["stages"].values()
    digest = next(out["md5"] for stage in stages for out in stage["outs"] if out["path"] == name)
    return Path(".dvc/cache/files/md5", digest[:2], digest[2:])


def flip(path: Path) -> None:
    """Change a byte and nothing else that one sees of the file."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(before.st_mode)


def test_what_the_stages_made_is_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert second(capsys) == (0, "")


@pytest.mark.parametrize("name", ["runs/text", "runs/notes/y"])
@pytest.mark.parametrize("listed", [True, False])
def test_an_input_that_is_not_what_its_stage_made_is_named_with_the_command(
    project: Path, capsys: pytest.CaptureFixture[str], name: str, listed: bool
) -> None:
    if not listed:
        cached("runs/notes").unlink()
        assert second(capsys) == (0, "")
    flip(project / name)
    code, message = second(capsys)
    assert code == 67
    assert f"{name if listed or name == 'runs/text' else 'runs/notes'} is not what its stage made" in message
    assert "`python -m components.mend && dvc repro`" in message
    assert not Path("runs/.copy.partial").exists()


def test_a_component_that_dvc_does_not_run_takes_any_input(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_STAGE")
    flip(project / "runs/text")
    assert second(capsys) == (0, "")


def test_what_a_stage_that_is_gone_once_made_at_the_same_path_does_not_count(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["before"] = {"cmd": "x", "outs": [{"path": "runs/text", "md5": "0" * 32, "size": 1}]}
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    assert second(capsys) == (0, "")


def test_a_damaged_object_is_refused_when_dvc_has_checked_it_out_and_the_named_command_mends_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Path("runs/copy").read_bytes()
    flip(cached("runs/text"))
    Path("runs/text").unlink()
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["cache"]["batch_size"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(params))
    done = dvc(project, "repro")
    assert done.returncode != 0
    assert "runs/text is not what its stage made" in done.stderr
    assert mend.main([]) == 0
    said = capsys.readouterr().out
    assert str(cached("runs/text")) in said
    assert "runs/text is removed" in said
    done = dvc(project, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path("runs/copy").read_bytes() == expected
    assert mend.main([]) == 0
    assert capsys.readouterr().out == ""


def test_the_run_in_one_command_mends_and_names_a_failed_stage_s_command_once(project: Path) -> None:
    graph = yaml.safe_load(Path("dvc.yaml").read_text())
    graph["stages"]["third"] = {"cmd": "python -c 'raise SystemExit(9)'", "deps": ["runs/copy"]}
    Path("dvc.yaml").write_text(yaml.safe_dump(graph))
    _empty(Path("dvc.lock"))
    command = [sys.executable, "-m", "components.run", "third"]
    env = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "HOME": str(project)}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "dvc.lock was cut off" in said
    assert "Stage 'second' is cached - skipping run" in said
    assert said.count("SystemExit(9)") == 1
    assert "failed to reproduce 'third': it ended with 9" in said


def test_settings_are_written_into_the_params_before_the_run(project: Path) -> None:
    before = Path("params.yaml").read_text()
    expected = before.replace("batch_size: 64 # changing", "batch_size: 32 # changing")
    env = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "HOME": str(project)}

    def run(settings: str) -> subprocess.CompletedProcess[str]:
        Path("settings.yaml").write_text(settings)
        command = [sys.executable, "-m", "components.run", "second", "--settings", "settings.yaml"]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)

    done = run("cache.batch_size: 32\n")
    assert (done.returncode, Path("params.yaml").read_text() == expected) == (0, expected != before), done.stderr
    assert "params.yaml has changed" in done.stderr
    assert "  cache.batch_size: 32\n" in done.stderr
    for wrong, sentence in (("cache.no_such: 1\n", "there is no key cache.no_such"), ("- 1\n", "expected dotted keys")):
        refused = run(wrong)
        assert (refused.returncode, sentence in refused.stderr) == (64, True), refused.stderr
    assert Path("params.yaml").read_text() == expected


def _half(lock: Path) -> None:
    lock.write_bytes(lock.read_bytes()[: lock.stat().st_size * 2 // 3])


def _valid_half(lock: Path) -> None:
    lock.write_text("schema: '2.0'\nstages:\n  first:\n    outs:\n    - path: runs/text\n")


def _empty(lock: Path) -> None:
    lock.write_bytes(b"")


@pytest.mark.parametrize("cut", [_half, _valid_half, _empty])
def test_half_a_dvc_lock_is_moved_aside_and_nothing_is_computed_again(
    project: Path, capsys: pytest.CaptureFixture[str], cut: Callable[[Path], None]
) -> None:
    whole = Path("dvc.lock").read_bytes()
    cut(Path("dvc.lock"))
    assert mend.main([]) == 0
    assert "dvc.lock was cut off and is now .dvc/tmp/dvc.lock.half" in capsys.readouterr().out
    done = dvc(project, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stage 'second' is cached - skipping run" in done.stdout
    assert Path("dvc.lock").read_bytes() == whole


@pytest.mark.parametrize("text", ["", '{"write": {"/x": {"pid"', '{"write": {"/x": {"pid": 1, "cmd": "dvc repro"}}}'])
def test_a_lock_of_dvc_s_that_is_cut_off_or_of_processes_that_are_gone_is_removed(
    project: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    Path(".dvc/tmp/rwlock").write_text(text)
    assert mend.main([]) == 0
    assert "rwlock" in capsys.readouterr().out
    assert not Path(".dvc/tmp/rwlock").exists()


def test_the_experiments_lock_is_held_to_and_mended_like_the_graph_s(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("experiments").mkdir()
    Path("dvc.lock").rename("experiments/dvc.lock")
    flip(project / "runs/text")
    assert second(capsys)[0] == 67
    _half(Path("experiments/dvc.lock"))
    assert mend.main([]) == 0
    assert "experiments/dvc.lock was cut off and is now .dvc/tmp/experiments-dvc.lock.half" in capsys.readouterr().out


def test_nothing_is_mended_while_dvc_is_at_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bin").mkdir()
    Path("bin/dvc").write_text("input()")
    with subprocess.Popen([sys.executable, "bin/dvc", "repro"], stdin=subprocess.PIPE) as other:
        entry = {"write": {"/x": {"pid": other.pid, "cmd": "dvc repro"}}}
        Path(".dvc/tmp/rwlock").write_text(json.dumps(entry))
        flip(project / "runs/text")
        try:
            assert mend.main([]) == 75
        finally:
            other.kill()
    assert f"process {other.pid}" in capsys.readouterr().err
    assert Path("runs/text").exists()


def test_mending_touches_no_file_outside_of_runs(project: Path, tmp_path: Path) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["first"]["outs"].append({"path": "data/mine", "md5": f"{'0' * 32}.dir", "size": 1, "nfiles": 1})
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    Path("data/mine").mkdir(parents=True)
    Path("data/mine/scan.png").write_bytes(b"mine")
    assert mend.main([]) == 0
    assert Path("data/mine/scan.png").read_bytes() == b"mine"


def test_what_a_stage_goes_on_from_is_kept_after_a_kill(project: Path) -> None:
    graph = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(
        graph.replace("outs: [runs/copy]", "outs: [{'runs/${cache.precision}': {persist: true}}]")
    )
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["second"]["outs"] = [{"path": "runs/float32", "md5": "0" * 32, "size": 1}]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    Path("runs/float32").write_text("half of more")
    assert mend.main([]) == 0
    assert Path("runs/float32").read_text() == "half of more"


def test_elsewhere_than_in_a_project_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mend.main([]) == 64
