"""What `python -m components` says of the champion after a run."""

import sys
from collections.abc import Callable

import pytest
import yaml
from fabricate import Run, promote

import registry
from clinprompt import cli
from clinprompt.params import load_params
from components.__main__ import main, summary


def champion_line(run: Run) -> str:
    """The line about the champion."""
    text = summary(load_params(run.root / "params.yaml"), run.root / "runs")
    [line] = [line for line in text.splitlines() if line.startswith("  champion: ")]
    return line.removeprefix("  champion: ")


def test_a_promotion_and_a_rejection_tell_who_is_the_champion(
    finished: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh_copy(finished)
    monkeypatch.chdir(run.root)
    run.decide("coop-1", "zero_shot-1", floor=1.0)
    assert promote(run) == 0
    assert champion_line(run) == "none yet"
    run.decide("coop-1", "zero_shot-1")
    assert promote(run) == 0
    assert champion_line(run) == "models:/tiny@champion, version 1"
    run.decide("coop-1", "zero_shot-1", champion=registry.champion("tiny"))
    assert promote(run) == 0
    assert champion_line(run) == "models:/tiny@champion, version 1, as before"
    run.tune(2, 0.9)
    run.decide("coop-2", champion=registry.champion("tiny"), floor=1.0)
    assert promote(run) == 0
    assert champion_line(run) == "models:/tiny@champion, version 1, which stays"

    said = summary(load_params(run.root / "params.yaml"), run.root / "runs")
    assert ("First, in this shell   source " in said) == bool(cli.activation())
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert "First, in" not in summary(load_params(run.root / "params.yaml"), run.root / "runs")


def test_a_choice_that_was_rolled_back_is_said_to_be_kept_out(
    promoted: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh_copy(promoted)
    monkeypatch.chdir(run.root)
    run.tune(2, 0.9)
    run.decide("coop-2", champion=registry.champion("tiny"))
    assert promote(run) == 0
    registry.rollback("tiny", "worse at site B")
    run.decide("coop-2", champion=registry.champion("tiny"))
    assert promote(run) == 0
    expected = "version 1; the choice was rolled back as version 2 (worse at site B) and is kept out"
    assert champion_line(run) == f"models:/tiny@champion, {expected}"


def test_a_dataset_without_a_decision_hides_no_other_s(
    finished: Run,
    fresh_copy: Callable[[Run], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fresh_copy(finished)
    monkeypatch.chdir(run.root)
    run.decide("coop-1", "zero_shot-1")
    assert promote(run) == 0
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    (run.root / "params.yaml").write_text(yaml.safe_dump(params | {"datasets": ["other", "tiny"]}))
    capsys.readouterr()
    assert main([]) == 66
    told = capsys.readouterr()
    assert "tiny: ACCEPTED" in told.out
    assert 'registry.load("tiny")' in told.out
    assert "No decision yet on other. Run `dvc repro`" in told.err
