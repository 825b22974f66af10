"""How often a test split may decide: what counts, what does not, and what of alpha each decision gets."""

import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from test_evaluation_gate_component import FakeChampion
from toy_run import FLOOR, NOT_WORSE, ToyRun

from clinprompt.data.manifest import write_manifest
from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.evaluation.budget import Use, share, split_digest
from clinprompt.params import BudgetParams
from registry import held_out
from registry.protocol.folder import FolderStore

ALPHA = 0.025
HIGH = {"kind": "floor", "metric": "accuracy", "at_least": 0.999}
USE = Use("t" * 64, 60, "coop-1", "p" * 64, "m" * 64, "q" * 64, ALPHA, "fallback", 50)


@pytest.fixture(autouse=True)
def _no_registry(crown: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.gate.__main__.log_candidates", lambda *files: False)


def counted() -> list[dict[str, Any]]:
    """The decisions that are counted, on all test splits."""
    files = sorted(Path("mlflow.db.journal/test-sets").rglob("*.json"))
    return [json.loads(file.read_text()) for file in files]


def decided(run: ToyRun) -> dict[str, Any]:
    assert run.gate() == 0
    return run.decision


def test_bad_models_pass_with_at_most_alpha_in_all_decisions_together() -> None:
    """By the definition of the procedure: whichever of the models are bad, and whichever good ones were let through
    before, the shares of the bad ones up to the first error add up to no more than alpha."""
    for bad in itertools.product([False, True], repeat=8):
        spent, had, accepted = 0.0, 0.0, False
        for number, is_bad in enumerate(bad, 1):
            had = share(ALPHA, number, had if accepted else 0.0)
            accepted = not is_bad  # before a first error the bad are rejected; the good passing is the worst case
            spent += had if is_bad else 0.0
        assert spent <= ALPHA + 1e-12
    assert share(ALPHA, 1) == ALPHA / 2
    assert sum(share(ALPHA, number) for number in range(1, 1000)) == pytest.approx(ALPHA * (1 - 1 / 1000))


def test_the_first_decision_has_half_of_alpha_and_says_so(run: ToyRun) -> None:
    record = decided(run)
    assert record["verdict"] == "accepted"
    assert (record["held_out"]["number"], record["held_out"]["at_most"], record["held_out"]["alpha"]) == (1, 50, 0.0125)
    assert record["reasons"][-1] == (
        "this is decision 1 of at most 50 on this test split, so each rule is tested at alpha 0.0125"
    )
    check = next(c for c in record["checks"] if c["name"] == "floor.balanced_accuracy")
    plain = run.metrics("coop-1")["test"]["balanced_accuracy"]  # at 95 %
    assert check["low"] < plain["low"] < plain["high"] < check["high"]
    [one] = counted()
    assert (one["number"], one["candidate"], one["verdict"], one["alpha"]) == (1, "coop-1", "accepted", 0.0125)


def test_the_same_decision_counts_once_and_has_the_same_bytes(run: ToyRun, crown: Callable[[Any], None]) -> None:
    record = decided(run)
    bytes_of_it = run.path("decision").read_bytes()
    run.path("decision").unlink()  # as in another workspace
    assert decided(run) == record
    crown(FakeChampion(model_digest=record["chosen"]["model_digest"]))
    assert decided(run) == record
    run.path("decision").unlink()  # the champion beside itself, by the numbers of its own decision
    assert decided(run)["held_out"] == record["held_out"]
    crown(None)  # rolled back
    run.path("decision").unlink()
    assert run.gate() == 0
    assert run.path("decision").read_bytes() == bytes_of_it
    assert len(counted()) == 1


def test_another_candidate_other_rules_or_another_champion_count(run: ToyRun, crown: Callable[[Any], None]) -> None:
    decided(run)
    run.set_rules(HIGH, NOT_WORSE)
    again = decided(run)  # what the accepted one had goes on to it
    assert (again["verdict"], again["held_out"]["number"]) == ("rejected", 2)
    assert again["held_out"]["alpha"] == pytest.approx(ALPHA / 6 + ALPHA / 2)
    run.candidate("coop-1", 1.1, noise=3)
    third = decided(run)  # a rejection's share is gone
    assert third["held_out"]["alpha"] == pytest.approx(ALPHA / 12)
    crown(FakeChampion())
    assert decided(run)["held_out"]["number"] == 4
    crown(FakeChampion(model_digest="d" * 64))
    assert decided(run)["held_out"]["number"] == 5
    assert [one["verdict"] for one in counted()] == ["accepted", *["rejected"] * 4]


def test_other_test_images_or_labels_are_another_test_split(run: ToyRun) -> None:
    decided(run)
    manifest = pd.read_parquet(run.path("manifest"))
    write_manifest(manifest.assign(site="C"), run.path("manifest"))
    assert decided(run)["held_out"]["number"] == 2  # its slices are others, its images the same
    gone = manifest.index[manifest["split"] == "test"][0]
    write_manifest(manifest.drop(index=gone), run.path("manifest"))
    for name in ("coop-1", "zero_shot-1"):
        table = pq.read_table(run.predictions(name))
        frame = table.to_pandas()
        kept = frame[frame["path"] != manifest["path"][gone]]
        pq.write_table(type(table).from_pandas(kept, schema=table.schema, preserve_index=False), run.predictions(name))
    record = decided(run)
    assert (record["held_out"]["number"], record["held_out"]["images"]) == (1, 59)
    assert sorted(one["number"] for one in counted()) == [1, 1, 2]
    digests = {split_digest(pairs) for pairs in ([("a", "x"), ("b", "y")], [("b", "y"), ("a", "x")])}
    assert len(digests) == 1
    assert split_digest([("a", "y"), ("b", "y")]) not in digests


def test_a_test_split_that_is_spent_decides_no_more(run: ToyRun) -> None:
    run.set_params("gate", budget={"decisions": 1, "spending": "fallback"})
    first = decided(run)
    run.set_rules(FLOOR, NOT_WORSE)
    record = decided(run)
    assert (record["verdict"], record["chosen"], record["checks"]) == ("rejected", None, [])
    assert record["reasons"] == [
        "this test split has decided once, which is all that gate.budget.decisions allows, so the champion stays "
        "until there is another test split"
    ]
    assert decided(run) == record
    assert len(counted()) == 1
    run.set_params("gate", rules=first["params"]["rules"])
    assert decided(run) == first
    run.set_rules(FLOOR, NOT_WORSE)
    run.set_params("gate", budget={"decisions": None, "spending": "fallback"})
    assert decided(run)["held_out"]["number"] == 2


def test_a_no_that_the_budget_alone_gives_says_what_would_change_it(run: ToyRun) -> None:
    value = run.metrics("coop-1")["test"]["accuracy"]
    for number in range(6):
        run.set_rules({**HIGH, "at_least": 0.999 - number / 1e6}, NOT_WORSE)
        decided(run)
    first = run.decision["checks"][0]  # found at a small share of alpha
    run.set_rules({**HIGH, "at_least": round((first["low"] + value["low"]) / 2, 4)}, NOT_WORSE)
    record = decided(run)
    assert record["held_out"]["number"] == 7
    assert record["verdict"] == "rejected"
    assert record["checks"][0]["change"].startswith("a new test split: as the first decision on one, at alpha 0.0125,")


def test_without_a_budget_nothing_is_counted(run: ToyRun) -> None:
    run.set_params("gate", budget={"decisions": None, "spending": "none"})
    record = decided(run)
    assert record["held_out"] is None
    assert counted() == []
    run.set_params("gate", budget={"decisions": 9, "spending": "none"})
    held = decided(run)["held_out"]
    assert (held["number"], held["alpha"]) == (1, ALPHA)


def test_a_crash_after_the_count_costs_nothing(run: ToyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from clinprompt.evaluation.decision import DecisionRecord

    with monkeypatch.context() as patch:
        patch.setattr(DecisionRecord, "write", lambda record, path: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run.gate() == 75
    assert [one["verdict"] for one in counted()] == [None]
    assert decided(run)["held_out"]["number"] == 1
    assert [one["verdict"] for one in counted()] == ["accepted"]


@pytest.mark.parametrize("damage", ["a gap", "no JSON", "too deep", "another format", "another number", "no alpha"])
def test_a_count_that_was_damaged_is_not_gone_on_with(run: ToyRun, damage: str) -> None:
    decided(run)
    run.set_rules(HIGH, NOT_WORSE)
    decided(run)
    first = next(Path("mlflow.db.journal/test-sets").rglob("000001.json"))
    if damage == "a gap":
        first.unlink()
    elif damage in ("no JSON", "too deep"):
        first.write_bytes(b"{" if damage == "no JSON" else b"[" * 5000)
    else:
        wrong = {"another format": {"format": 9}, "another number": {"number": 2}, "no alpha": {"alpha": float("nan")}}
        first.write_text(json.dumps(json.loads(first.read_text()) | wrong[damage]))
    run.set_rules(FLOOR, NOT_WORSE)
    before = run.path("decision").read_bytes()
    assert run.gate() == 67
    assert run.path("decision").read_bytes() == before


def test_many_at_once_get_numbers_without_a_gap(tmp_path: Path) -> None:
    ledger = held_out.Ledger(FolderStore(tmp_path), "toy")
    uses = [replace(USE, predictions=f"{n % 6:064d}") for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(lambda use: ledger.claim(use, None), uses))
    assert sorted(one.number or 0 for one in told) == sorted([*range(1, 7)] * 2)
    assert [one.number for one in told[:6]] == [one.number for one in told[6:]]
    assert np.allclose(sorted({one.alpha for one in told}, reverse=True), [share(ALPHA, n) for n in range(1, 7)])


def test_no_place_to_count_in_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "shared_place", lambda journal: None)  # a server, and no journal
    with pytest.raises(BadParams, match=r"set registry\.journal"):
        held_out.ledger("toy", None, BudgetParams(decisions=50, spending="fallback"))
    assert held_out.ledger("toy", None, BudgetParams(decisions=None, spending="none")) is None


def test_another_s_object_is_not_taken_for_a_decision(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.create(f"{USE.test_set}/notes.txt", b"hello")
    with pytest.raises(InputCorrupt, match="and 000001 is missing"):
        held_out.Ledger(store, "toy").claim(USE, None)
