"""`python -m registry`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from fabricate import CLASSES, Run

from clinprompt.errors import BadParams
from registry import api
from registry.__main__ import main
from registry.tracking import connect


@pytest.fixture
def run(promoted: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """A project whose first model is in production."""
    return fresh_copy(promoted)


def test_list_and_show_give_aliases_digests_and_metrics(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    receipt = json.loads(run.receipt.read_text())
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert [one["name"] for one in listed] == ["tiny", "tiny-candidate"]
    assert main(["show", "tiny", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == listed[0]
    version = shown["versions"][0]
    assert (version["version"], version["aliases"]) == (1, ["champion"])
    assert version["lineage"]["payload_digest"] == receipt["payload_digest"]
    assert {"test_balanced_accuracy", "test_balanced_accuracy_low", "val_auroc"} <= set(version["metrics"])


def test_its_command_imports_nothing_heavy(root: Path) -> None:
    heavy = {"torch", "pandas", "scipy", "mlflow"}
    code = f"import sys, registry.__main__; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_people_get_an_aligned_table(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    for column, value in (("VERSION", "1"), ("ALIASES", "champion"), ("METHOD", "coop")):
        assert first[header.index(column) :].startswith(value)
    assert second.startswith("tiny-candidate")
    assert main(["show", "tiny"]) == 0
    assert "tiny version 1 (champion)" in capsys.readouterr().out


def test_load_classifies_an_image(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(run.images(1)[0])
    assert main(["load", "tiny", "--image", str(image), "--json"]) == 0
    loaded = json.loads(capsys.readouterr().out)
    assert list(loaded["prediction"]) == list(CLASSES)
    assert sum(loaded["prediction"].values()) == pytest.approx(1)
    assert main(["load", "tiny"]) == 0
    assert "every digest is right" in capsys.readouterr().out
    image.write_bytes(b"no image")
    assert main(["load", "tiny", "--image", str(image)]) == 64
    assert "not a PNG, JPEG, TIFF, BMP, WebP, GIF, DICOM, NIfTI or zipped DICOM image" in capsys.readouterr().err


def test_load_reads_no_image_of_4_gb(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(run.images(1)[0])
    os.truncate(image, 1 << 32)  # takes no room on the disk
    assert main(["load", "tiny", "--image", str(image)]) == 64
    assert "image.png: the file has 4294967296 bytes, more than the limit of 800000000." in capsys.readouterr().err


def test_errors_are_one_sentence_with_the_shared_exit_codes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "other"]) == 66
    assert "There is no registered model 'other'" in capsys.readouterr().err
    assert main(["load", "other"]) == 66
    assert main(["load", "tiny", "--image", "absent.png"]) == 66
    assert main(["delete"]) == 64
    assert main(["decisions", "tiny", "--params", "absent.yaml"]) == 66
    assert "absent.yaml is not a file" in capsys.readouterr().err
    assert main(["rollback", "tiny", "--reason", "a test", "--params", "absent.yaml"]) == 66


@pytest.mark.parametrize("number", ["0", "-1", "99999999999999999999"])
def test_a_number_that_no_version_has_is_told_and_stands_for_no_other(
    run: Run, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    for command in (["verify", "tiny"], ["lineage", "tiny"], ["export", "tiny", "new"], ["serve-check", "tiny"]):
        assert main([*command, f"--version={number}"]) == 66
        assert f"There is no version {number} of 'tiny'" in capsys.readouterr().err
    assert main(["unquarantine", "tiny", "--reason", "a test", f"--version={number}"]) == 66
    if number != "-1":  # an option, to the command line
        assert main(["diff", "tiny", "1", number]) == 66


@pytest.mark.parametrize("number", ["\u0661", "\uff11", "\u00b2", "+1", "1_0", " 1", "1.0", "0x1", "", "9" * 5000])
def test_a_version_s_number_is_written_in_plain_digits(
    run: Run, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    reason = ["--reason", "a test"]
    commands = [["verify", "tiny"], ["lineage", "tiny"], ["export", "tiny", "new"], ["sign", "tiny"]]
    commands += [["rollback", "tiny", *reason], ["unquarantine", "tiny", *reason], ["reproduce", "tiny", "new"]]
    for command in commands:
        assert main([*command, f"--version={number}"]) == 64
        assert "is no version's number, which is written in the digits 0 to 9" in capsys.readouterr().err
    assert main(["rollback", "tiny", *reason, f"--to={number}"]) == 64
    with pytest.raises(BadParams, match="is no version's number"):
        api.rollback("tiny", "a test", version=number)  # type: ignore[arg-type]
    with pytest.raises(BadParams, match="is no version's number"):
        api.unquarantine("tiny", number, "a test")  # type: ignore[arg-type]
    assert main(["diff", "tiny", "1", number]) == (64 if number.isnumeric() else 66)  # else an alias
    for found in (True, 1.5):
        with pytest.raises(BadParams, match="is no version's number"):
            api.verify("tiny", found)  # type: ignore[arg-type]


def test_ctrl_c_and_a_place_for_the_result_that_is_none_have_their_codes(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINPROMPT_RESULT_FILE", "/proc/x")
    assert main(["unquarantine", "tiny", "--version", "1", "--reason", "a test", "--json"]) == 66
    said = capsys.readouterr()
    assert "nothing can be made at /proc/x" in said.err
    assert json.loads(said.out)["exit_code"] == 66

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("registry.listing.models", interrupted)
    assert main(["list"]) == 75
    assert capsys.readouterr().err == "interrupted; run the same command again.\n"


def test_an_empty_registry_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "Nothing is registered yet" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": []}


def test_a_folder_in_the_registry_s_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///place")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "place").mkdir()
    for command in (["list"], ["verify", "tiny"], ["rollback", "tiny", "--reason", "a test"]):
        assert main(command) == 66
        assert "sqlite:///place is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mysql://me:secret@host/db", "needs the Python package 'MySQLdb'"),
        ("databricks", "name a server"),
        ("/some/folder", "name a server"),
        ("foo://x", "name a server"),
        ("file:///some/folder", "name a server"),
    ],
)
def test_an_address_that_is_no_registry_s_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str, words: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["list"]) == 64
    said = capsys.readouterr().err
    assert words in said
    assert "secret" not in said


IMPOSSIBLE = ["a/b", "../x", "it's", 'a"b', "a%", "{dataset}", "a:b", "", "a\x00b", "x' OR '1'='1", "n" * 300]


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("command", ["show", "load", "rollback", "unquarantine"])
def test_a_name_that_no_model_can_have_is_refused_in_a_sentence(
    run: Run, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    more = {"rollback": ["--reason", "bad"], "unquarantine": ["--reason", "good", "--version", "1"]}
    assert main([command, *more.get(command, []), "--", name]) == 64
    assert capsys.readouterr().err == (
        f"{name!r} can't be the name of a registered model: it must be of letters, digits, '.', '_', '-' and spaces, "
        "and begin with a letter or a digit.\n"
    )


def test_what_others_have_registered_under_an_odd_name_is_listed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("it's", "50% {grey}", "empty"):
        connect().create_registered_model(name)
    assert main(["show", "empty"]) == 0
    assert capsys.readouterr().out == "empty has no version.\n"
    assert main(["list", "--json"]) == 0
    assert {"it's", "50% {grey}"} < {one["name"] for one in json.loads(capsys.readouterr().out)["models"]}


def test_model_and_version_say_what_they_are_and_since_when(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect()
    for name in ("tiny", "tiny-candidate"):
        model, version = client.get_registered_model(name), client.get_model_version(name, "1")
        assert model.description.startswith("Tiny squares: classifies one MRI image (brain) into ")
        assert "It is no medical device." in model.description
        assert version.description.startswith("# Tiny squares: coop\n")
        assert "| balanced_accuracy |" in version.description
        for tags in (model.tags, version.tags):
            assert "bright: " in tags["class_names"]
            assert tags["intended_use"].startswith("For research")
    assert main(["list", "--json"]) == 0
    production, candidate = json.loads(capsys.readouterr().out)["models"]
    for one in (production, candidate):
        assert datetime.fromisoformat(one["versions"][0]["created"]).tzinfo is not None
    assert production["versions"][0]["promoted"] >= production["versions"][0]["created"]
    assert candidate["versions"][0]["promoted"] is None
    assert main(["list"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert first[header.index("PROMOTED") :].startswith(production["versions"][0]["promoted"][:10])
    assert second[header.index("PROMOTED") :].startswith("- ")
    assert first[header.index("CREATED") :].startswith(production["versions"][0]["created"][:10])
