"""The gate component: the record, when it holds, and what it refuses to judge."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from toy_run import CLASSES, FLOOR, NOT_WORSE, ROOT, ToyRun

import registry
from clinprompt.errors import ServiceDown
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.evaluation.table import SPLITS
from clinprompt.files import to_json, write_json
from clinprompt.tuned.artifact import model_digest


@dataclass
class FakeChampion:
    """What the gate asks of a registry version; it predicts the first class with probability `first`."""

    name: str = "toy"
    version: int = 7
    model_digest: str = "c" * 64
    classes: tuple[str, ...] = CLASSES
    first: float = 0.4
    seen: int = 0

    def predict(self, images: list[bytes]) -> np.ndarray:
        self.seen += len(images)
        row = [self.first, *([(1 - self.first) / (len(CLASSES) - 1)] * (len(CLASSES) - 1))]
        return np.tile(row, (len(images), 1))


@pytest.fixture(autouse=True)
def _no_champion_at_first(crown: Callable[[Any], None]) -> None:
    """No test of this file looks into a real registry."""


@pytest.fixture(autouse=True)
def _nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one write to it: tests/registry/test_registry_candidates.py does."""
    monkeypatch.setattr("components.gate.__main__.log_candidates", lambda *files: False)


def test_the_record_has_every_number(run: ToyRun) -> None:
    assert run.gate() == 0
    record = run.decision
    digest = model_digest(run.path("models") / "coop-1")
    assert record["verdict"] == "accepted"
    chosen = {"candidate": "coop", "method": "coop", "seed": 1, "folder": "coop-1", "model_digest": digest}
    assert record["chosen"] == chosen
    assert record["champion"] is None
    assert {c["name"] for c in record["checks"]} == {"floor.auroc", "floor.balanced_accuracy"}
    assert len(record["required"]) == len(record["params"]["rules"]) == 3
    for candidate in record["candidates"]:
        measured = run.metrics(f"{candidate['candidate']}-{candidate['seed']}")
        assert {split: candidate[split] for split in SPLITS} == {split: measured[split] for split in SPLITS}
    assert set(record["inputs"]) == {"card", "manifest", "models", "predictions"}
    assert record["params"]["rules"][1] == {"kind": "floor", "metric": "auroc", "at_least": 0.7}
    assert run.path("decision").read_text() == to_json(record)


def test_without_a_champion_the_record_has_the_same_bytes_again(run: ToyRun) -> None:
    assert run.gate() == 0
    before = run.path("decision").read_bytes()
    assert run.gate() == 0
    assert run.path("decision").read_bytes() == before


def test_a_promoted_choice_leaves_the_record_untouched(
    run: ToyRun, crown: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    assert run.gate() == 0
    before, stamp = run.path("decision").read_bytes(), run.path("decision").stat().st_mtime_ns
    crown(FakeChampion(model_digest=run.decision["chosen"]["model_digest"]))
    caplog.set_level("INFO")
    assert run.gate() == 0
    assert "nothing to do" in caplog.text
    assert (run.path("decision").read_bytes(), run.path("decision").stat().st_mtime_ns) == (before, stamp)


@pytest.mark.parametrize("forgery", ["choice", "numbers", "check", "candidate"])
def test_a_forged_record_of_the_promoted_choice_is_made_anew(
    run: ToyRun, crown: Callable[[Any], None], caplog: pytest.LogCaptureFixture, forgery: str
) -> None:
    run.set_rules(FLOOR, {"kind": "not_worse_than_champion", "margin": 0.3})
    assert run.gate() == 0
    true, forged = run.decision, run.decision
    if forgery == "choice":
        other = next(c for c in forged["candidates"] if c["candidate"] != "coop")
        forged["chosen"] = {key: other[key] for key in ("candidate", "method", "seed", "model_digest")}
        forged["chosen"]["folder"] = f"{other['candidate']}-{other['seed']}"
    elif forgery == "numbers":
        forged["candidates"][0]["test"]["accuracy"]["value"] = 0.999
    elif forgery == "check":
        forged["checks"][0]["value"] = 0.999
    else:
        del forged["candidates"][1]
    write_json(run.path("decision"), forged)
    crown(FakeChampion(model_digest=forged["chosen"]["model_digest"]))
    assert run.gate() == 0
    assert "made anew" in caplog.text
    assert run.decision["chosen"] == true["chosen"]
    assert run.decision["candidates"] == true["candidates"]


def test_a_forged_rejection_is_made_anew(run: ToyRun, crown: Callable[[Any], None]) -> None:
    crown(FakeChampion())
    assert run.gate() == 0
    true = run.decision
    write_json(run.path("decision"), true | {"verdict": "rejected", "chosen": None})
    assert run.gate() == 0
    assert run.decision == true


def test_a_champion_with_its_classes_in_another_order_is_compared_by_name(
    run: ToyRun, crown: Callable[[Any], None]
) -> None:
    crown(FakeChampion())
    assert run.gate() == 0
    expected = run.decision
    turned = FakeChampion(classes=CLASSES[::-1])
    straight = turned.predict
    turned.predict = lambda images: straight(images)[:, ::-1]  # type: ignore[method-assign]
    crown(turned)
    write_json(run.path("decision"), {})
    assert run.gate() == 0
    assert run.decision == expected


def test_other_params_or_another_champion_ask_for_a_new_decision(run: ToyRun, crown: Callable[[Any], None]) -> None:
    assert run.gate() == 0
    mine = FakeChampion(model_digest=run.decision["chosen"]["model_digest"])
    crown(mine)
    run.set_rules(FLOOR, {"kind": "not_worse_than_champion", "margin": 0.05})
    assert run.gate() == 0
    assert run.decision["champion"] == {"name": "toy", "version": "7", "model_digest": mine.model_digest}
    assert run.decision["checks"][-1]["value"] == 0.0
    assert mine.seen == 0
    crown(FakeChampion())
    assert run.gate() == 0
    assert run.decision["champion"]["model_digest"] == "c" * 64


def test_a_champion_that_is_no_candidate_predicts_the_test_images(run: ToyRun, crown: Callable[[Any], None]) -> None:
    old = FakeChampion()
    crown(old)
    assert run.gate() == 0
    check = run.decision["checks"][-1]
    assert old.seen == 60
    assert check["name"] == "not_worse_than_champion.balanced_accuracy"
    own = run.metrics("coop-1")["test"]["balanced_accuracy"]["value"]
    assert check["value"] == pytest.approx(own - 1 / 3, abs=1e-6)
    assert run.decision["verdict"] == "accepted"


def test_a_rejection_ends_well_unless_a_scheduler_asks(
    run: ToyRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run.set_rules({"kind": "floor", "metric": "accuracy", "at_least": 0.999}, NOT_WORSE)
    caplog.set_level("INFO")
    assert run.gate() == 0
    (line,) = (r.message for r in caplog.records if "REJECTED" in r.message)
    assert line.startswith("REJECTED: coop-1: accuracy on the test split is 0.")
    assert run.decision["chosen"] is None
    monkeypatch.setenv("CLINPROMPT_GATE_EXIT_CODE", "1")
    assert run.gate() == 77


def test_a_rejection_against_the_same_champion_is_not_worked_out_again(
    run: ToyRun, crown: Callable[[Any], None]
) -> None:
    run.set_rules({"kind": "floor", "metric": "accuracy", "at_least": 0.999}, NOT_WORSE)
    old = FakeChampion()
    crown(old)
    assert run.gate() == run.gate() == 0
    assert old.seen == 60


@pytest.mark.parametrize("counted", [True, False])
def test_a_forged_comparison_of_a_rejection_is_made_anew(
    run: ToyRun, crown: Callable[[Any], None], caplog: pytest.LogCaptureFixture, counted: bool
) -> None:
    run.set_rules({"kind": "floor", "metric": "accuracy", "at_least": 0.999}, NOT_WORSE)
    if not counted:
        params = yaml.safe_load(run.path("params").read_text())
        params["gate"]["budget"] = {"decisions": None, "spending": "none"}
        run.path("params").write_text(yaml.safe_dump(params))
    crown(FakeChampion())
    assert run.gate() == 0
    true = run.path("decision").read_bytes()

    def forged(facts: dict[str, Any], **more: Any) -> dict[str, Any]:
        checks = [check | facts if check.get("beside") else check for check in run.decision["checks"]]
        return run.decision | {"checks": checks} | more

    far = {"value": 0.9, "low": 0.9, "high": 0.9}
    design = {**next(check for check in run.decision["checks"] if check.get("beside"))["design"], "patients": 1}
    for other in (forged(far), forged({"design": design}), forged({}, cross_checks=[])):
        caplog.clear()
        write_json(run.path("decision"), other)
        assert run.gate() == 0
        assert "its checks are not those of the predictions; it is made anew" in caplog.text
        assert run.path("decision").read_bytes() == true


def test_a_champion_with_other_classes_can_t_be_compared(run: ToyRun, crown: Callable[[Any], None]) -> None:
    crown(FakeChampion(classes=("glioma", "none")))
    assert run.gate() == 0
    assert run.decision["verdict"] == "rejected"
    assert "the champion knows the classes ['glioma', 'none']" in run.decision["reasons"][0]
    assert "registry.production_model" in run.decision["reasons"][0]


def test_folders_that_params_do_not_list_do_not_count(run: ToyRun) -> None:
    run.candidate("stale-9", 9.0)
    assert run.gate() == 0
    assert run.decision["chosen"]["folder"] == "coop-1"
    assert "stale" not in run.path("decision").read_text()


def test_a_damaged_record_is_replaced(run: ToyRun) -> None:
    assert run.gate() == 0
    good = run.path("decision").read_bytes()
    run.path("decision").write_bytes(good[:100])
    assert run.gate() == 0
    assert run.path("decision").read_bytes() == good


def _edit(run: ToyRun, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = run.predictions("coop-1")
    table = pq.read_table(path)
    frame = change(table.to_pandas())
    pq.write_table(type(table).from_pandas(frame, schema=table.schema, preserve_index=False), path)


def _shuffle(column: str) -> Callable[[ToyRun], None]:
    return lambda run: _edit(run, lambda frame: frame.assign(**{column: frame[column].to_numpy()[::-1]}))


UNSOUND: dict[str, tuple[Callable[[ToyRun], Any], str]] = {
    "no predictions": (lambda run: run.predictions("coop-1").unlink(), "predictions.parquet does not exist"),
    "no model": (lambda run: (run.path("models") / "coop-1/head.safetensors").unlink(), "there is no tuned model"),
    "cut off": (lambda run: run.predictions("coop-1").write_bytes(b"PAR1"), "is not a predictions file"),
    "rows shuffled": (lambda run: _edit(run, lambda f: f.sample(frac=1, random_state=0)), "path of row"),
    "labels shuffled": (_shuffle("label"), "label of row"),
    "a row gone": (lambda run: _edit(run, lambda f: f.iloc[1:]), "holds 119 images, the manifest's val and test"),
    "NaN": (lambda run: _edit(run, lambda f: f.assign(p_none=np.nan)), "holds no probabilities"),
    "not summing to 1": (lambda run: _edit(run, lambda f: f.assign(p_none=0.9)), "holds no probabilities"),
    "another model's": (lambda run: run.tune("coop-1", 2.0), "not of toy coop-1 (model"),
    "another candidate's": (
        lambda run: run.predictions("coop-1").write_bytes(run.predictions("zero_shot-1").read_bytes()),
        "holds the predictions of toy zero_shot-1",
    ),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_an_unsound_candidate_is_rejected_with_the_reason(run: ToyRun, case: str) -> None:
    damage, message = UNSOUND[case]
    damage(run)
    assert run.gate() == 0
    record = run.decision
    assert (record["verdict"], record["chosen"]) == ("rejected", None)
    assert len(record["reasons"]) == 1
    assert record["reasons"][0].startswith("coop-1: ")
    assert message in record["reasons"][0]
    assert record["candidates"][0]["test"] is None


def test_a_registry_that_is_down_ends_with_69_and_no_record(
    run: ToyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(name: str, alias: str = "champion") -> None:
        raise ServiceDown("The MLflow server at http://localhost:1 does not answer.")

    monkeypatch.setattr(registry, "champion", down)
    assert run.gate() == 69
    assert "does not answer" in capsys.readouterr().err
    assert not run.path("decision").exists()


def test_of_equally_good_ones_a_rejection_is_shown_with_the_one_that_the_gate_picks(run: ToyRun) -> None:
    assert run.gate() == 0
    record = DecisionRecord.read(run.path("decision"))
    best = record.shown()
    assert best is not None
    twins = [candidate.model_copy(update={"val": best.val}) for candidate in record.candidates]
    for candidates in (twins, twins[::-1]):
        shown = record.model_copy(update={"chosen": None, "candidates": candidates}).shown()
        assert shown is not None
        assert shown.name == min(candidate.name for candidate in twins)


def test_an_image_that_is_not_the_manifest_s_is_not_judged(run: ToyRun, crown: Callable[[Any], None]) -> None:
    crown(FakeChampion())
    manifest = pd.read_parquet(run.path("manifest"))
    file = manifest[manifest["split"] == "test"]["file"].iloc[0]
    (run.path("images") / file).write_bytes(b"another")
    assert run.gate() == 67
    assert not run.path("decision").exists()


def test_a_tampered_rejection_is_decided_anew_without_a_champion(run: ToyRun) -> None:
    run.set_rules({"kind": "floor", "metric": "accuracy", "at_least": 0.999}, NOT_WORSE)
    assert run.gate() == 0
    write_json(run.path("decision"), run.decision | {"verdict": "accepted"})
    assert run.gate() == 0
    assert run.decision["verdict"] == "rejected"


def test_a_card_s_prose_and_a_class_s_phrase_make_no_new_decision(run: ToyRun) -> None:
    assert run.gate() == 0
    before = run.path("decision").read_bytes()
    card = yaml.safe_load(run.path("card").read_text())
    card |= {"title": "Another title", "licence": "CC0", "source": "elsewhere", "how_to_get": "Ask."}
    card["classes"][0]["phrase"] = "in other words"
    run.path("card").write_text(yaml.safe_dump(card))
    assert run.gate() == 0
    assert run.path("decision").read_bytes() == before
    card["classes"][0]["name"] = "another name"
    run.path("card").write_text(yaml.safe_dump(card))
    assert run.gate() == 0
    assert run.path("decision").read_bytes() != before


def test_finding_nothing_to_do_imports_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "sklearn", "mlflow", "matplotlib", "scipy"}
    code = f"import sys, components.gate.__main__; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_variant_is_judged_under_its_own_name(run: ToyRun) -> None:
    run.tune("coop-16-1", 3.0, method="coop")
    assert run.evaluate("coop-16-1") == 0
    assert (run.metrics("coop-16-1")["candidate"], run.metrics("coop-16-1")["method"]) == ("coop-16", "coop")
    run.set_params("candidates", methods=["coop-16"], seeds=[1], variants={"coop-16": {"method": "coop", "n_ctx": 16}})
    assert run.gate() == 0
    chosen = run.decision["chosen"]
    assert (chosen["candidate"], chosen["method"], chosen["folder"]) == ("coop-16", "coop", "coop-16-1")
    assert run.decision["reasons"][0].startswith("coop-16-1 has the best")
