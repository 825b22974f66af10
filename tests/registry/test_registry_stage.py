"""`python -m registry promote DATASET`: the stage of dvc.yaml, alone, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from fabricate import Run, gate, promote
from outcome import result, state

import registry
from clinprompt.data.card_parts import card_digests
from clinprompt.data.manifest import write_manifest
from clinprompt.files import read_json, write_json
from clinprompt.schema import to_yaml
from registry.__main__ import main
from registry.tracking import connect


def _project(run: Run, root: Path) -> Run:
    """The run's folder as a project of DVC, with the graph and the code of this repository."""
    for name in ("clinprompt", "components", "registry"):
        (run.root / name).symlink_to(root / name)
    for file in ("dvc.yaml", "infra/images.lock", "infra/sources.lock", "requirements/components.txt"):
        (run.root / file).parent.mkdir(exist_ok=True)
        shutil.copy(root / file, run.root / file)
    locked = {"datasets": {"tiny": card_digests(run.card)}}
    (run.root / "runs" / "settings.lock").write_text(to_yaml(locked, sort_keys=True))
    for arguments in (["init", "-q", "--no-scm"], ["config", "core.analytics", "false"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=run.root, check=True, stdout=subprocess.DEVNULL)
    return run


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, dict[str, Any]]]:
    """Asks for the promotion by the command; the exit code and the line of JSON."""

    def ask() -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["promote", "tiny", "--json"])
        return code, result(capsys)

    return ask


@pytest.mark.slow
def test_the_command_promotes_what_the_gate_decided_and_nothing_that_was_changed_since(
    finished: Run, fresh_copy: Callable[[Run], Run], root: Path, asked: Callable[[], tuple[int, dict[str, Any]]]
) -> None:
    run = _project(fresh_copy(finished), root)
    accepted = run.decision.read_bytes()
    write_json(run.decision, read_json(run.decision) | {"verdict": "rejected", "chosen": None})
    code, told = asked()
    assert (code, told["status"], told["exit_code"]) == (67, "input_corrupt", 67)
    assert "decision.json is not what the gate decides now: it rejects coop-1" in told["message"]
    assert not (run.root / "mlflow.db").exists()

    run.decision.write_bytes(accepted)
    code, told = asked()
    assert (code, told["status"], told["action"], told["version"]) == (0, "ok", "promoted", 1)
    champion = registry.champion("tiny")
    assert champion is not None
    assert champion.version == 1
    code, told = asked()
    assert (code, told["action"], told["version"]) == (0, "unchanged", 1)


@pytest.mark.slow
def test_the_command_tells_people_of_a_rejection_without_asking_who_the_champion_is(
    finished: Run, fresh_copy: Callable[[Run], Run], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _project(fresh_copy(finished), root)
    run.decide("coop-1", "zero_shot-1", floor=1.0)
    assert main(["promote", "tiny"]) == 0
    assert capsys.readouterr().out == "tiny: rejected; the registry stays as it is.\n"


def test_the_command_needs_a_project_and_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["promote", "tiny"]) == 66
    assert f"{tmp_path} has no dvc.yaml" in capsys.readouterr().err
    assert main(["promote", "../tiny"]) == 64
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert main(["promote", "tiny"]) == 66
    assert "The stage promote@tiny did not start" in capsys.readouterr().err


def _predictions(run: Run) -> None:
    path = run.folder / "evaluate" / "coop-2" / "predictions.parquet"
    path.write_bytes((run.folder / "evaluate" / "coop-1" / "predictions.parquet").read_bytes())


def _manifest(run: Run) -> None:
    path = run.folder / "validate" / "manifest.parquet"
    frame = pd.read_parquet(path)
    write_manifest(frame.drop(index=frame.index[frame["split"] == "test"][0]), path)


def _classes(run: Run) -> None:
    path = run.root / "datasets" / "tiny.yaml"
    card = yaml.safe_load(path.read_text())
    card["classes"] = card["classes"][::-1]
    path.write_text(yaml.safe_dump(card))


def _params(run: Run) -> None:
    path = run.root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["gate"]["alpha"] = 0.2
    path.write_text(yaml.safe_dump(params))


def _metrics(run: Run, change: Callable[[dict[str, Any]], Any]) -> None:
    path = run.folder / "metrics" / "coop-2.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))


def _decision(run: Run, change: Callable[[dict[str, Any]], Any]) -> None:
    record = json.loads(run.decision.read_text())
    change(record)
    run.decision.write_text(json.dumps(record))


CHANGED: dict[str, tuple[Callable[[Run], Any], int, str]] = {
    "predictions": (_predictions, 67, "it was made from other inputs"),
    "another evaluation manifest": (_manifest, 67, "it was made from other inputs"),
    "classes in another order": (_classes, 67, "it was made from other inputs"),
    "params": (_params, 67, "it was made from other params"),
    "a metric that is no number": (
        lambda run: _metrics(run, lambda found: found["test"]["auroc"].update(value=np.nan)), 67, "coop-2.json is not",
    ),
    "a number of the decision that is none": (
        lambda run: _decision(run, lambda found: found["checks"][0].update(low=np.nan)), 67, "its checks are not those",
    ),
    "a slice that is missing": (
        lambda run: _metrics(run, lambda found: found["slices"].popitem()), 67, "coop-2.json is not what",
    ),
    "a check that is missing": (
        lambda run: _decision(run, lambda found: found["checks"].pop(0)), 67, "its checks are not those",
    ),
    "a champion that it was not made against": (
        lambda run: run.decide("coop-2"), 65, "made against no champion, and the champion is now version 1",
    ),
    "a champion that was deleted": (
        lambda run: connect().delete_model_version("tiny", "1"), 65, "the champion is now none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_what_changed_since_the_decision_is_refused_in_a_sentence(
    challenged: Run, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, code, words = CHANGED[case]
    change(challenged)
    before = state()
    assert promote(challenged) == code
    assert words in result(capsys)["message"]
    assert state() == before
    assert read_json(challenged.receipt)["version"] == 1  # the receipt of the first promotion


def test_a_decision_that_was_not_counted_or_took_a_larger_share_is_refused(
    finished: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fresh_copy(finished)
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    params["gate"]["budget"] = {"decisions": 2, "spending": "fallback"}
    (run.root / "params.yaml").write_text(yaml.safe_dump(params))
    assert gate(run) == 0
    record = read_json(run.decision)
    assert record["held_out"]["number"] == 1
    write_json(run.decision, record | {"held_out": record["held_out"] | {"alpha": 0.025}})
    assert promote(run) == 67
    assert "the registry counts decision 1 on its test split, at alpha 0.0125" in result(capsys)["message"]
    write_json(run.decision, record)
    journal = run.root / "mlflow.db.journal"
    os.rename(journal / "test-sets", journal / "kept")
    assert promote(run) == 67
    assert "the registry counts no decision on its test split" in result(capsys)["message"]
    os.rename(journal / "kept", journal / "test-sets")
    assert promote(run) == 0
    assert gate(run) == promote(run) == 0
    assert read_json(run.decision) == record
    capsys.readouterr()
    assert main(["decisions", "tiny", "--json"]) == 0
    [split] = json.loads(capsys.readouterr().out)["test_sets"]
    assert split["test_set"] == record["held_out"]["digest"]
    assert [(one["number"], one["candidate"], one["verdict"]) for one in split["decisions"]] == [
        (1, "coop-1", "accepted")
    ]
    assert main(["decisions", "tiny"]) == 0
    assert "accepted  alpha 0.0125  tiny  coop-1" in capsys.readouterr().out
    assert main(["decisions", "other"]) == 0
    assert capsys.readouterr().out == "No decision on a candidate for other is counted.\n"


def test_where_reproductions_are_required_nothing_else_is_promoted(
    finished: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fresh_copy(finished)
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    params["registry"]["reproduce"] = "required"
    (run.root / "params.yaml").write_text(yaml.safe_dump(params))
    assert promote(run) == 65
    assert "python -m registry promote tiny --reproduce" in result(capsys)["message"]
    assert not (run.root / "mlflow.db").exists()
    kept = run.root / "mlflow.db.journal" / "reproduced" / f"{read_json(run.decision)['chosen']['model_digest']}.json"
    kept.parent.mkdir(parents=True)
    names = read_json(run.decision)["chosen"]
    seen = {"format": 1, "dataset": "tiny", "model": "tiny", "candidate": "coop-1", "digest": names["model_digest"]}
    for wrong in ({}, seen | {"format": 2}, {"format": 1}, []):
        write_json(kept, wrong)
        assert promote(run) == 67
        assert "can't be read; delete it" in result(capsys)["message"]
    for key in ("dataset", "model", "candidate", "digest"):
        write_json(kept, seen | {key: "another"})
        assert promote(run) == 65
        assert (
            f"was not trained again yet (what lies there as its second training is of another {key})"
            in (result(capsys)["message"])
        )
    write_json(kept, seen)
    assert promote(run) == 0
    kept.unlink()
    assert promote(run) == 0  # it is the champion already
