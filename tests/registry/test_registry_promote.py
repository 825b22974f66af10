"""Promotion: one end state, whatever happened before."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fabricate import COMPONENTS, Run, promote, promote_twice_at_once
from mlflow import MlflowClient
from outcome import result, state

import registry
from clinprompt.tuned.failure import TrainingFailure
from registry import collect, listing, provenance
from registry.__main__ import main
from registry.tracking import connect


def test_first_accepted_model_becomes_champion_with_its_lineage(run: Run) -> None:
    receipt = json.loads(run.receipt.read_text())
    decision = json.loads(run.decision.read_text())
    assert (receipt["action"], receipt["version"], receipt["model"]) == ("promoted", 1, "tiny")
    assert receipt["aliases"] == {"champion": 1, "previous": None}
    assert receipt["candidate"] == {"model": "tiny-candidate", "version": 1}
    assert receipt["model_digest"] == decision["chosen"]["model_digest"]
    version = listing.model("tiny")["versions"][0]
    for key in ("manifest", "backbone", "decision", "params", "model", "card", "requirements"):
        assert len(version["lineage"][f"{key}_digest"]) == 64
    assert version["lineage"]["seed"] == "1"
    test = json.loads((run.folder / "metrics" / "coop-1.json").read_text())["test"]["balanced_accuracy"]
    assert version["metrics"]["test_balanced_accuracy"] == pytest.approx(test["value"])
    assert version["metrics"]["test_balanced_accuracy_low"] == pytest.approx(test["low"])


def test_the_run_holds_the_decision_and_the_dataset(run: Run) -> None:
    client = connect()
    entity = client.get_run(listing.model("tiny")["versions"][0]["run"])
    assert "decision.json" in {file.path for file in client.list_artifacts(entity.info.run_id)}
    dataset = entity.inputs.dataset_inputs[0].dataset
    assert dataset.name == "tiny"
    assert len(dataset.digest) <= 36
    assert entity.data.tags["manifest_digest"] in dataset.source
    assert entity.data.tags["manifest_digest"].startswith(dataset.digest)


def test_the_report_is_attached_to_the_run_of_the_promoted_version(run: Run) -> None:
    attached = run.root / "attached.json"
    files = {"receipt": run.receipt, "report": run.folder / "report.html", "attached": attached}
    options = [word for key, path in files.items() for word in (f"--{key}", str(path))]
    # In a process of its own, as DVC runs it: MLflow keeps the folders of a process's runs.
    command = [sys.executable, "-m", "components.attach", "--dataset", "tiny", *options]
    env = os.environ | {"PYTHONPATH": str(COMPONENTS.parent)}
    subprocess.run(command, cwd=run.root, env=env, check=True, stdout=subprocess.DEVNULL)
    run_id = json.loads(attached.read_text())["run_id"]
    assert run_id == listing.model("tiny")["versions"][0]["run"]
    assert "report.html" in {file.path for file in connect().list_artifacts(run_id)}


def test_promoting_again_changes_no_byte_and_loads_neither_torch_nor_mlflow(run: Run, root: Path) -> None:
    before, receipt = state(), run.receipt.read_bytes()
    script = (
        "import sys; from pathlib import Path; from components.promote.__main__ import work;"
        "from components.runner import execute;"
        f"code = execute('promote', work, sys.argv[1:], Path({str(root / 'components')!r}));"
        "assert not {'torch', 'mlflow', 'scipy.stats'} & set(sys.modules); sys.exit(code)"
    )
    env = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script, *run.promote_options()], cwd=run.root, env=env, check=True)
    assert run.receipt.read_bytes() == receipt
    assert state() == before


def test_promoting_again_is_told_as_unchanged(
    run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    receipt = run.receipt.read_bytes()
    with caplog.at_level("INFO"):
        assert promote(run) == 0
    assert result(capsys)["action"] == "unchanged"
    assert "promote: tiny: unchanged: version 1 is the champion." in caplog.messages
    assert run.receipt.read_bytes() == receipt


def test_a_choice_beside_one_that_could_not_be_trained_is_promoted(
    finished: Run, fresh_copy: Callable[[Run], Run]
) -> None:
    run = fresh_copy(finished)
    folder = run.folder / "tune" / "zero_shot-1"
    for file in folder.iterdir():
        file.unlink()
    failure = TrainingFailure(dataset="tiny", candidate="zero_shot", method="zero_shot", seed=1, reason="it diverged")
    failure.write(folder / "failed.json")
    assert run.decide("coop-1", "zero_shot-1")["verdict"] == "accepted"
    decision = run.decision.read_text()
    run.decision.write_text(decision.replace("it diverged", "it was bad"))
    assert promote(run) == 67  # not what the files say
    run.decision.write_text(decision)
    assert promote(run) == 0
    assert json.loads(run.receipt.read_text())["version"] == 1


def test_a_lost_alias_is_set_again_without_a_second_version(run: Run) -> None:
    before = state()
    connect().delete_registered_model_alias("tiny", "champion")
    assert promote(run) == 0
    assert state() == before


def describe_anew(run: Run) -> None:
    path = run.folder / "describe" / "descriptions.parquet"
    frame = pd.read_parquet(path)
    frame["text"] += " It is often seen."
    frame.to_parquet(path)


def test_what_a_model_does_not_read_makes_no_version_of_it(run: Run) -> None:
    before = state()
    describe_anew(run)
    card = run.root / "datasets" / "tiny.yaml"
    card.write_text(card.read_text().replace("Tiny squares", "Small squares"))
    run.decide("coop-1", "zero_shot-1", champion=registry.champion("tiny"))
    assert promote(run) == 0
    assert json.loads(run.receipt.read_text())["action"] == "unchanged"
    record = run.folder / "tune" / "coop-1" / "model.yaml"
    record.write_text(record.read_text().replace("clinprompt: '0'", "clinprompt: another"))
    run.evaluate_again("coop", 1)
    run.decide("coop-1", "zero_shot-1", champion=registry.champion("tiny"))
    assert promote(run) == 0
    assert state() == before


def test_other_descriptions_make_another_model_of_one_that_reads_them(
    finished: Run, fresh_copy: Callable[[Run], Run]
) -> None:
    run = fresh_copy(finished)
    record = run.folder / "tune" / "coop-1" / "model.yaml"
    record.write_text(record.read_text().replace("knowledge: null", f"knowledge: {{descriptions: {'e' * 64}}}"))
    run.evaluate_again("coop", 1)
    run.decide("coop-1", "zero_shot-1")
    assert promote(run) == 0
    facts = listing.model("tiny")["versions"][0]["lineage"]
    assert len(facts["knowledge_digest"]) == 64
    table = pd.read_parquet(run.folder / "describe" / "descriptions.parquet")
    assert float(facts["knowledge_rejected_share"]) == round(1 - table["accepted"].mean(), 4)
    describe_anew(run)
    assert promote(run) == 0
    assert state()["tiny"][1] == {"champion": 2, "previous": 1}


def test_the_old_champion_becomes_previous(challenged: Run, capsys: pytest.CaptureFixture[str]) -> None:
    old = registry.champion("tiny")
    assert promote(challenged) == 0
    assert result(capsys)["version"] == 2
    new, previous = registry.champion("tiny"), registry.champion("tiny", "previous")
    assert old is not None
    assert new is not None
    assert previous is not None
    assert (previous.version, previous.payload_digest) == (1, old.payload_digest)
    assert new.model_digest != old.model_digest
    assert json.loads(challenged.receipt.read_text())["aliases"] == {"champion": 2, "previous": 1}


def test_a_decision_against_another_champion_is_stale(
    challenged: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = (challenged.decision, challenged.root / "params.yaml")
    stale = [file.read_bytes() for file in files]
    challenged.tune(3, 0.8)
    challenged.decide("coop-3", champion=registry.champion("tiny"))
    assert promote(challenged) == 0
    before = state()
    for file, content in zip(files, stale, strict=True):
        file.write_bytes(content)
    assert promote(challenged) == 65
    line = result(capsys)
    assert "made against version 1, and the champion is now version 2" in line["message"]
    assert "dvc repro" in line["message"]
    assert state() == before


def test_a_rejected_decision_leaves_no_trace_in_the_registry(finished: Run, fresh_copy: Callable[[Run], Run]) -> None:
    run = fresh_copy(finished)
    assert run.decide("coop-1", "zero_shot-1", floor=1.0)["verdict"] == "rejected"
    assert promote(run) == 0
    receipt = json.loads(run.receipt.read_text())
    assert (receipt["action"], receipt["version"]) == ("rejected", None)
    assert not (run.root / "mlflow.db").exists()
    assert not (run.root / "mlartifacts").exists()


def test_the_digests_go_with_the_candidate_that_another_promotion_registered(
    finished: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    import registry.run as module
    from registry import versions
    from registry.model_folder import FILES_TAG

    run, log_release = fresh_copy(finished), module.log_release

    def other_first(client: Any, release: Any, packed: Any) -> Any:
        other = log_release(client, release, packed)
        tags = packed.facts | {FILES_TAG: other.files}
        versions.find_or_create(client, "tiny-candidate", other.uri, other.run_id, tags, other.model_id)
        client.set_terminated(other.run_id, "KILLED")  # so that this promotion logs a run of its own
        for kind in ("record", "model"):
            shutil.rmtree(packed.payload.with_name(kind))
        return log_release(client, release, packed)

    monkeypatch.setattr(module, "log_release", other_first)
    assert promote(run) == 0
    assert {name: len(payloads) for name, (payloads, _) in state().items()} == {"tiny": 1, "tiny-candidate": 1}
    assert registry.load("tiny") is not None


def test_what_is_refused_when_it_is_tried_out_says_so_until_it_is_promoted_or_collected(
    challenged: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged: list[tuple[Path, bytes]] = []

    def damage(client: MlflowClient, model_id: str, folder: str) -> None:
        log(client, model_id, folder)
        [file] = (challenged.root / "mlartifacts").glob(f"**/{model_id}/artifacts/artifacts/payload/head.safetensors")
        damaged.append((file, file.read_bytes()))
        file.write_bytes(b"another")

    log = MlflowClient.log_model_artifacts
    monkeypatch.setattr(MlflowClient, "log_model_artifacts", damage)
    assert promote(challenged) == 67
    assert "was changed after registration" in result(capsys)["message"]
    for model in listing.models():
        new, old = model["versions"]
        assert (new["state"], new["promoted"], old["state"]) == ("refused", None, None)
        assert "was changed after registration" in new["lineage"]["refused"]
    assert state()["tiny"][1] == {"champion": 1}
    assert main(["list"]) == 0
    assert "refused" in capsys.readouterr().out
    assert collect.gc("tiny")["versions"] == {"tiny": [2], "tiny-candidate": [2]}
    file, content = damaged[0]
    file.write_bytes(content)
    assert promote(challenged) == 0
    assert state()["tiny"][1] == {"champion": 2, "previous": 1}
    assert not [version for model in listing.models() for version in model["versions"] if version["state"]]
    assert collect.gc("tiny")["versions"] == {}


class Crash(BaseException):
    """A process that dies: nothing may catch it."""


CRASHES = [
    ("mlflow.MlflowClient.log_inputs", 1),
    ("mlflow.pyfunc.save_model", 1),
    ("mlflow.MlflowClient.log_model_artifacts", 1),
    ("mlflow.MlflowClient.create_model_version", 1),
    ("mlflow.MlflowClient.create_model_version", 2),
    ("registry.promote.verify", 1),
    ("mlflow.MlflowClient.set_registered_model_alias", 1),
    ("mlflow.MlflowClient.set_registered_model_alias", 2),
    ("registry.promote._receipt", 1),
]


@pytest.mark.parametrize(("step", "call"), CRASHES)
def test_a_crash_before_any_step_and_a_second_try_end_the_same(
    challenged: Run, monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    import importlib

    owner, name = step.rsplit(".", 1)
    module = importlib.import_module("mlflow" if owner == "mlflow.MlflowClient" else owner)
    target = module.MlflowClient if owner == "mlflow.MlflowClient" else module
    original, calls = getattr(target, name), []

    def crash(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == call:
            raise Crash
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, crash)
        with pytest.raises(Crash):
            promote(challenged)
    champion = registry.champion("tiny")
    assert champion is not None  # consumers are served at every moment
    (challenged.root / "dvc.lock").write_text("stages: {}")  # so that the second try has another lineage
    assert promote(challenged) == 0
    for model in ("tiny", "tiny-candidate"):  # what the first one has logged is told as it was
        assert "lineage" in provenance.verify(model, 2)["checks"]
    found = state()
    assert {name: (len(payloads), aliases) for name, (payloads, aliases) in found.items()} == {
        "tiny": (2, {"champion": 2, "previous": 1}),
        "tiny-candidate": (2, {}),
    }
    assert found["tiny"][0] == found["tiny-candidate"][0]
    unfinished = [run for run in connect().search_runs(["1"]) if run.info.status == "RUNNING"]
    assert not unfinished


@pytest.mark.slow
def test_two_promotions_at_once_register_one_version(challenged: Run) -> None:
    promote_twice_at_once(challenged)
    assert state()["tiny"][1] == {"champion": 2, "previous": 1}
    assert len(state()["tiny"][0]) == len(state()["tiny-candidate"][0]) == 2


def test_a_model_that_is_not_the_chosen_one_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with (run.folder / "tune" / "coop-1" / "head.safetensors").open("ab") as file:
        file.write(b" ")
    assert promote(run) == 67
    assert "is not the model that the gate chose" in result(capsys)["message"]


def test_a_server_that_is_away_is_said_with_its_address(
    finished: Run, fresh_copy: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fresh_copy(finished)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert promote(run) == 69
    assert "http://127.0.0.1:9 does not answer" in result(capsys)["message"]
    assert not run.receipt.exists()
