"""Every command's usage: wrong usage ends with the shared exit code and one sentence, `--help` with 0."""

import errno
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clinprompt import cli
from clinprompt.contract.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "registry": ["-m", "registry"],
    "registry-command": ["-m", "registry", "rollback"],
    "workspace": ["-m", "workspace"],
    "workspace-command": ["-m", "workspace", "release"],
    "components": ["-m", "components"],
    "run": ["-m", "components.run"],
    "mend": ["-m", "components.mend"],
    "interface": ["-m", "components.interface"],
    "component": ["-m", "components.ingest"],
    "new": ["-m", "clinprompt.data.new"],
    "experiments": ["-m", "clinprompt.experiments"],
    "experiments-command": ["-m", "clinprompt.experiments", "table"],
    "knowledge": ["-m", "clinprompt.knowledge"],
    "knowledge-command": ["-m", "clinprompt.knowledge", "check"],
    "fetch": ["-m", "clinprompt.backbones.fetch"],
    "train": ["-m", "clinprompt.demo.train"],
    "images": ["-m", "infra.images"],
    "images-command": ["-m", "infra.images", "sbom"],
    "stack": ["infra/dev/stack.py"],
    "stack-command": ["infra/dev/stack.py", "up"],
    "env": ["-S", "infra/compose/env.py"],  # must run without any installed package
}
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@every_command
def test_an_unknown_option_is_bad_params_in_one_sentence(command: list[str]) -> None:
    done = run(*command, "--no-such-option")
    assert done.returncode == ExitCode.BAD_PARAMS, done.stderr
    assert re.fullmatch(r"[^\n]+\(see [^\n]+ --help\)\.\n", done.stderr)


@every_command
def test_help_is_no_error(command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: " in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "registry", "delete"], "No such command 'delete'"),
        (["-m", "registry", "rollback", "tiny"], "Missing option '--reason'"),
        (["-m", "registry", "unquarantine", "tiny", "--reason", "x", "--version", "two"], "'--version'"),
        (["-m", "workspace"], "Missing command"),
        (["-m", "clinprompt.data.new", "mine"], "Missing argument 'root'"),
        (["-m", "clinprompt.experiments", "table", "--metric", "speed"], "'speed' is none of accuracy, "),
        (["-m", "clinprompt.experiments", "table", "--protocol", "half"], "'half' is none of full, "),
        (["-m", "clinprompt.knowledge", "check", "texts.csv"], "Missing option '--card'"),
        (["-m", "infra.images", "--engine", "rkt", "check"], "'rkt'"),
        (["infra/dev/stack.py", "kill", "nothing", "--folder", "absent"], "'nothing' is none of postgres, "),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == ExitCode.BAD_PARAMS, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x"), 66, "permission denied: x; give this user the right"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 75, "the disk is full: x; free some space"),
        (MemoryError(), 75, "the memory is too small"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, sentence: str
) -> None:
    app = cli.application()

    @app.command()
    def fail() -> None:
        raise error

    assert cli.main(app, [], "fail") == code
    assert sentence in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    app = cli.application()

    @app.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.main(app, [], "fail")


def test_a_python_without_the_requirements_is_told_how_to_get_the_right_one(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (bare / "bin").mkdir()
    (bare / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    command = [str(bare / "bin" / "python"), "-m", "components.lock", "--sources", "x", "--settings", "y"]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.BAD_PARAMS
    assert done.stderr.count("\n") == 1
    assert "run `source .venv/bin/activate` and the same command again, or `make run`" in done.stderr


def test_the_environment_s_activation_is_named_where_the_shell_has_not_done_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert cli.activation() == "source .venv/bin/activate"
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "another"))
    assert cli.activation() == "source .venv/bin/activate"
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / ".venv"))
    assert cli.activation() == ""
    (tmp_path / ".venv" / "bin" / "activate").unlink()
    monkeypatch.delenv("VIRTUAL_ENV")
    assert cli.activation() == ""


WRITE = {  # every command that writes to a place that its user names
    "export": ["-m", "registry", "export", "tiny"],
    "reproduce": ["-m", "registry", "reproduce", "tiny"],
    "pull-results": ["-m", "registry", "pull-results"],
    "table": ["-m", "clinprompt.experiments", "table", "--out"],
    "check": ["-m", "clinprompt.knowledge", "check", "texts.csv", "--card", "card.yaml", "--out"],
    "check-review": ["-m", "clinprompt.knowledge", "check", "texts.csv", "--card", "card.yaml", "--review"],
    "review": ["-m", "clinprompt.knowledge", "review", "x.parquet", "--card", "card.yaml", "--out"],
    "train": ["-m", "clinprompt.demo.train", "--out"],
    "component": ["-m", "components.lock", "--settings", "x", "--sources"],
    "decisions": ["-m", "workspace", "decisions", "brain-phantom", "--out"],
}


@pytest.mark.parametrize("command", WRITE.values(), ids=WRITE)
def test_a_place_where_nothing_can_be_made_is_refused_before_any_work(command: list[str]) -> None:
    done = run(*command, "/proc/x")
    assert done.returncode == ExitCode.INPUT_MISSING, done.stderr
    assert re.fullmatch(r"[^\n]*nothing can be made at /proc/x [^\n]+\n", done.stderr)


@pytest.mark.parametrize("command", ["clinprompt.demo.train", "clinprompt.demo.volumes.train"])
def test_no_training_replaces_a_folder_of_other_files(tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    done = run("-m", command, "--out", str(tmp_path))
    assert done.returncode == ExitCode.BAD_PARAMS
    assert "holds other files, which would be lost" in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_a_reader_that_goes_away_is_no_error() -> None:
    shell = f"({shlex.quote(sys.executable)} -m components.interface; echo $? >&2) | true"
    for command in (shell, shell.replace("interface", "interface --help"), shell.replace("| true", ">&-")):
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stderr == "0\n"
    full = shell.replace("| true", ">/dev/full")
    done = subprocess.run(["bash", "-c", full], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "the disk is full; free some space and run the same command again.\n75\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_text_is_shown_as_its_bytes(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = cli.application()

    @app.command()
    def show(name: Path, text: str) -> None:
        sys.stdout.write(f"{name}\n")
        text.encode()

    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(app, ["\udcff", "a"], "show") == 0
    assert stream.buffer.getvalue() == b"\\udcff\n"  # type: ignore[attr-defined]


def test_an_argument_that_is_no_text_is_refused_where_it_must_be_text(capsys: pytest.CaptureFixture[str]) -> None:
    app = cli.application()

    @app.command()
    def show(text: str) -> None:
        text.encode()

    assert cli.main(app, ["\udcff"], "show") == 64
    assert capsys.readouterr().err == "'\\udcff' is no text: it holds bytes that are not UTF-8's.\n"
