"""Rollback and quarantine: one end state, and no way back in for what was rolled back until someone says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabricate import Run, promote

import registry
from clinprompt.errors import BadParams, InputMissing
from registry import listing
from registry.__main__ import main
from registry.served_code import code_of
from registry.tracking import connect

AIRFLOW = {"dag_id": "rollback", "run_id": "manual__1", "task_id": "rollback", "map_index": -1, "try_number": 1}


@pytest.fixture(scope="session")
def two(promoted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A project whose champion is version 2, and version 1 before it."""
    from fabricate import copy_run

    run = copy_run(promoted, tmp_path_factory.mktemp("two"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run.tune(2, 0.9)
        run.decide("coop-2", champion=registry.champion("tiny"))
        assert promote(run) == 0
    return run


@pytest.fixture
def run(two: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """This test's own copy."""
    monkeypatch.delenv("CLINPROMPT_AIRFLOW", raising=False)
    return fresh_copy(two)


def aliases() -> dict[str, int]:
    """The production model's aliases."""
    found: dict[str, int] = listing.model("tiny")["aliases"]
    return found


def tags(version: int) -> dict[str, str]:
    """A production version's tags."""
    found: dict[str, str] = next(v for v in listing.model("tiny")["versions"] if v["version"] == version)["lineage"]
    return found


def promote_again(run: Run, name: str = "coop-2") -> int:
    """What the next scheduled run does: the gate decides against the champion of now, and promote follows."""
    run.decide(name, champion=registry.champion("tiny"))
    return promote(run)


def test_the_version_before_serves_again_and_the_other_is_quarantined(run: Run) -> None:
    done = registry.rollback("tiny", "it misses\n every dark square")
    expected = {"model": "tiny", "action": "rolled_back", "version": 1, "rolled_back": 2}
    assert done == expected | {"reason": "it misses every dark square"}
    assert aliases() == {"champion": 1}
    held = tags(2)
    assert (held["quarantined"], held["quarantine_reason"]) == ("true", "it misses every dark square")
    assert held["quarantine_champion"] == "1"
    assert held["quarantine_at"].endswith("+00:00")
    assert held["quarantine_by"]
    assert "quarantined" not in tags(1)
    champion = registry.champion("tiny")
    assert champion is not None
    assert champion.predict(run.images(1)).shape == (1, 3)


def test_a_second_call_does_not_roll_back_a_second_time(run: Run) -> None:
    registry.rollback("tiny", "bad")
    before = listing.models()
    for options in ({}, {"version": 2}, {"to": 1}):
        done = registry.rollback("tiny", "bad again", **options)
        assert (done["action"], done["version"], done["rolled_back"], done["reason"]) == ("unchanged", 1, 2, "bad")
    assert listing.models() == before


def test_a_late_retry_leaves_the_champion_that_came_since(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINPROMPT_AIRFLOW", json.dumps(AIRFLOW))
    registry.rollback("tiny", "bad")
    assert tags(2)["quarantine_by"] == "airflow rollback manual__1"
    run.tune(3, 0.8)
    assert promote_again(run, "coop-3") == 0
    assert aliases() == {"champion": 3, "previous": 1}
    monkeypatch.setenv("CLINPROMPT_AIRFLOW", json.dumps(AIRFLOW | {"try_number": 2}))
    assert registry.rollback("tiny", "bad")["rolled_back"] == 2
    monkeypatch.delenv("CLINPROMPT_AIRFLOW")
    assert registry.rollback("tiny", "bad", version=2)["action"] == "unchanged"
    assert aliases() == {"champion": 3, "previous": 1}
    assert registry.rollback("tiny", "worse")["version"] == 1


class Crash(BaseException):
    """A process that dies: nothing may catch it."""


CRASHES = [("set_model_version_tag", n) for n in (1, 5)] + [
    ("delete_registered_model_alias", 1),
    ("set_registered_model_alias", 1),
]


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("step", "call"), CRASHES)
def test_a_crash_at_any_step_and_a_second_try_end_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str, call: int, late: bool
) -> None:
    import mlflow

    original, calls = getattr(mlflow.MlflowClient, step), []

    def crash(*args: Any, **kwargs: Any) -> Any:
        calls.append(step)
        if late:
            original(*args, **kwargs)
        if len(calls) == call:
            raise Crash
        return None if late else original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, step, crash)
        with pytest.raises(Crash):
            registry.rollback("tiny", "bad")
    assert registry.champion("tiny") is not None  # consumers are served at every moment
    assert registry.rollback("tiny", "bad")["version"] == 1
    assert aliases() == {"champion": 1}
    assert (tags(2)["quarantined"], tags(2)["quarantine_reason"], tags(2)["quarantine_champion"]) == (
        "true",
        "bad",
        "1",
    )


def test_a_quarantined_model_is_not_promoted_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    registry.rollback("tiny", "misses dark squares")
    before = listing.models()
    assert promote_again(run) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["action"], line["model"], line["version"]) == ("quarantined", "tiny", 1)
    receipt = run.receipt.read_bytes()
    assert json.loads(receipt)["quarantined"] == {"version": 2, "reason": "misses dark squares"}
    assert promote(run) == 0
    assert run.receipt.read_bytes() == receipt
    assert listing.models() == before


def test_a_quarantined_model_is_known_in_another_payload_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.rollback("tiny", "bad")
    for user in ("package", "request"):
        monkeypatch.setattr(f"registry.{user}.code_of", lambda spec: code_of(spec) | {"code/more.py": b""})
    assert promote_again(run) == 0
    assert json.loads(run.receipt.read_text())["action"] == "quarantined"
    assert aliases() == {"champion": 1}


def test_the_same_payload_from_another_record_is_known(run: Run) -> None:
    registry.rollback("tiny", "bad")
    record = run.folder / "tune" / "coop-2" / "model.yaml"
    record.write_text(record.read_text().replace("clinprompt: '0'", "clinprompt: another"))  # not part of the payload
    run.evaluate_again("coop", 2)
    assert promote_again(run) == 0
    assert json.loads(run.receipt.read_text())["quarantined"]["version"] == 2
    assert aliases() == {"champion": 1}


def test_a_champion_whose_rollback_stopped_halfway_is_not_promoted_anew(run: Run) -> None:
    connect().set_model_version_tag("tiny", "2", "quarantined", "true")
    assert promote(run) == 0
    assert json.loads(run.receipt.read_text())["action"] == "quarantined"
    run.tune(3, 0.8)
    assert promote_again(run, "coop-3") == 0
    assert aliases() == {"champion": 3, "previous": 1}  # never back to what is quarantined


def test_a_lifted_quarantine_lets_the_version_in_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    registry.rollback("tiny", "bad")
    assert main(["unquarantine", "tiny", "--version", "2", "--reason", "the scanner was broken", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "lifted"
    assert main(["unquarantine", "tiny", "--version", "2", "--reason", "again"]) == 0
    assert "is not quarantined; nothing changed" in capsys.readouterr().out
    assert tags(2)["quarantine_lifted"].endswith(": the scanner was broken")
    assert promote_again(run) == 0
    assert aliases() == {"champion": 2, "previous": 1}
    assert registry.rollback("tiny", "bad after all")["version"] == 1
    assert tags(2)["quarantine_reason"] == "bad after all"
    assert main(["unquarantine", "tiny", "--version", "7", "--reason", "x"]) == 66
    assert "There is no version 7 of 'tiny'" in capsys.readouterr().err


def test_a_version_further_back_can_be_named(run: Run) -> None:
    run.tune(3, 0.8)
    assert promote_again(run, "coop-3") == 0
    with pytest.raises(BadParams, match="The champion of 'tiny' is version 3, not 2; nothing was rolled back"):
        registry.rollback("tiny", "bad", version=2)
    with pytest.raises(InputMissing, match="version 3 is the champion. Name one with --to VERSION"):
        registry.rollback("tiny", "bad", to=3)
    assert registry.rollback("tiny", "bad", version=3, to=1)["version"] == 1
    assert registry.rollback("tiny", "bad", version=3, to=1)["action"] == "unchanged"
    assert aliases() == {"champion": 1}
    with pytest.raises(InputMissing, match="Version 3 of 'tiny' is quarantined itself"):
        registry.rollback("tiny", "bad", version=1, to=3)


def test_a_version_that_does_not_load_is_not_gone_back_to(run: Run) -> None:
    client = connect()
    folder = Path(client.get_model_version_download_uri("tiny", "1").removeprefix("file://"))
    (folder / "artifacts" / "payload" / "head.safetensors").unlink()
    before = listing.models()
    with pytest.raises(InputMissing, match=r"head\.safetensors does not exist"):
        registry.rollback("tiny", "bad")
    assert listing.models() == before


def test_there_must_be_a_champion_a_version_before_it_and_a_reason(
    promoted: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    fresh_copy(promoted)
    assert main(["rollback", "tiny", "--reason", " "]) == 64
    assert "say why in a few words" in capsys.readouterr().err
    for command in (["rollback", "tiny"], ["unquarantine", "tiny", "--version", "1"]):
        assert main([*command, "--reason", "x" * 1001]) == 64
        assert "at most 1,000 characters; found 1,001" in capsys.readouterr().err
    assert main(["rollback", "other", "--reason", "bad"]) == 66
    assert "There is no registered model 'other'" in capsys.readouterr().err
    assert main(["rollback", "tiny", "--reason", "bad", "--json"]) == 66
    said = capsys.readouterr()
    assert "There is no version of 'tiny' to go back to: no version carries the alias 'previous'" in said.err
    assert json.loads(said.out) == {"status": "input_missing", "exit_code": 66, "message": said.err.strip()}
    assert aliases() == {"champion": 1}


def test_the_command_takes_a_dataset_and_gives_one_line_of_json(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "return.json"
    monkeypatch.setenv("CLINPROMPT_RESULT_FILE", str(result))
    assert main(["rollback", "tiny", "--reason", "bad", "--version", "2", "--json"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line == result.read_text()
    assert json.loads(line) == {
        "status": "ok", "model": "tiny", "action": "rolled_back", "version": 1, "rolled_back": 2, "reason": "bad",
    }  # fmt: skip
    params = run.root / "params.yaml"
    params.write_text(params.read_text().replace("production_model: '{dataset}'", "production_model: '{dataset}-live'"))
    assert main(["rollback", "tiny", "--reason", "bad"]) == 66
    assert "There is no registered model 'tiny-live'" in capsys.readouterr().err
    assert main(["rollback", "tiny", "--json"]) == 64
    assert json.loads(capsys.readouterr().out)["exit_code"] == 64


def test_list_and_show_tell_what_is_quarantined(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    registry.rollback("tiny", "misses dark squares")
    assert main(["list"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()[:3]
    at = header.index("STATE")
    assert (first[at:].split()[0], second[at:].split()[0]) == ("quarantined", "-")
    assert main(["show", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "tiny version 2, quarantined\n" in shown
    assert "misses dark squares" in shown
    assert main(["show", "tiny", "--json"]) == 0
    states = [version["state"] for version in json.loads(capsys.readouterr().out)["versions"]]
    assert states == ["quarantined", None]
