"""A candidate is tried out as it would be served, before the gate lets it through and before it is registered."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from fabricate import Run, gate, promote

import registry
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.data.codecs import decode_image
from clinprompt.evaluation.behaviour import Trial
from clinprompt.evaluation.metrics_record import Metrics
from clinprompt.files import read_json, write_json
from registry import probe as trying
from registry import probe_script
from registry.backbone import BackboneFiles
from registry.model_card import schema
from registry.package import payload_of
from registry.probe import Shown, probe

RUN = trying._run
LATENCY = {"kind": "latency", "at_most_ms": 50.0, "requests": 7}


def test_a_candidate_that_behaves_is_accepted_and_served_as_it_was_judged(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(run, {"kind": "behaviour", "images": 6, "at_most_flipped": 1.0})
    assert gate(run) == 0, capsys.readouterr().out
    record = read_json(run.decision)
    assert record["verdict"] == "accepted", record["reasons"]
    found = record["tried"]
    assert found["images"] == 6
    assert max(found["sums"], found["batch"], found["classes"]) < 1e-5
    assert found["judged"] < 1e-4
    assert 0 <= found["flipped"] <= 1
    [check] = [check for check in record["checks"] if check["rule"] == "behaviour"]
    assert check["passed"]
    # Told again, and not tried again: what the record holds is what the gate decides on.
    monkeypatch.setattr("registry.probe._run", lambda *arguments: pytest.fail("it was tried again"))
    assert gate(run) == 0
    assert read_json(run.decision) == record


def test_what_the_gate_tried_out_is_tried_out_again_before_it_is_promoted(
    finished: Run,
    fresh_copy: Callable[[Run], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fresh_copy(finished)
    hold(run, {"kind": "behaviour", "images": 3, "at_most_flipped": 1.0})
    assert gate(run) == 0, capsys.readouterr().out
    with monkeypatch.context() as other:
        other.setattr("registry.probe._run", lambda *arguments: (None, "no memory"))
        assert promote(run) == ExitCode.INPUT_CORRUPT
        said = "coop-1 does not behave as the decision says: served, it fails: it does not predict"
        assert said in capsys.readouterr().out
        assert registry.champion("tiny") is None
    assert promote(run) == 0, capsys.readouterr().out
    assert registry.champion("tiny") is not None


def test_what_is_timed_is_judged_with_the_behaviour_and_told_again_from_the_record(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(run, {"kind": "behaviour", "images": 3, "at_most_flipped": 1.0}, LATENCY)
    tried = clock(monkeypatch, 0.04)
    assert gate(run) == 0, capsys.readouterr().out
    record = read_json(run.decision)
    assert record["verdict"] == "accepted", record["reasons"]
    assert len(tried) == 1
    assert [check["passed"] for check in record["checks"] if check["rule"] in ("behaviour", "latency")] == [True, True]
    assert record["tried"]["images"] == 3
    [latency] = record["tried"]["latencies"]
    facts = {"requests": 7, "device": "cpu", "threads": 1, "low": 40.0, "median": 40.0, "high": 40.0}
    assert latency == facts | {"on": latency["on"]}
    clock(monkeypatch, 9.0)
    assert gate(run) == 0
    assert read_json(run.decision) == record
    write_json(run.decision, record | {"tried": record["tried"] | {"latencies": []}})
    assert gate(run) == 0
    assert read_json(run.decision)["verdict"] == "rejected"  # what was edited is made anew, by the clock of now


def test_a_model_that_never_reaches_the_ceiling_is_not_promoted_whatever_its_record_says(
    finished: Run,
    fresh_copy: Callable[[Run], Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fresh_copy(finished)
    hold(run, LATENCY)
    clock(monkeypatch, 0.01)
    assert gate(run) == 0, capsys.readouterr().out
    record = read_json(run.decision)
    assert record["verdict"] == "accepted", record["reasons"]
    [latency] = record["tried"]["latencies"]
    write_json(run.decision, record | {"tried": {"images": 0, "latencies": [latency | {"high": 49.0}]}})
    assert promote(run) == ExitCode.INPUT_CORRUPT
    assert "its checks are not those of the predictions" in capsys.readouterr().out
    write_json(run.decision, record)
    tried = clock(monkeypatch, 0.07, 0.06, 0.08)
    assert promote(run) == ExitCode.INPUT_CORRUPT
    said = "coop-1 does not behave as the decision says: at best of 3 measurements an image takes 60 ms"
    assert said in capsys.readouterr().out
    assert len(tried) == 3
    assert registry.champion("tiny") is None
    clock(monkeypatch, 0.07, 0.05)
    assert promote(run) == 0, capsys.readouterr().out
    assert registry.champion("tiny") is not None


def test_a_payload_that_is_too_large_is_not_accepted_or_promoted(
    finished: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fresh_copy(finished)
    backbone = BackboneFiles("tiny-clip", read_digest(run), run.root / "backbone")
    payload_of(run.folder / "tune" / "coop-1", None, backbone, 10**6).write(run.root / "packed")
    size = sum(file.stat().st_size for file in (run.root / "packed").rglob("*") if file.is_file()) / 1e6
    hold(run, {"kind": "payload_size", "at_most_mb": 0.99 * size})
    assert gate(run) == 0, capsys.readouterr().out
    record = read_json(run.decision)
    assert record["verdict"] == "rejected"
    [check] = [check for check in record["checks"] if check["rule"] == "payload_size"]
    # What was fitted for serving goes along, and is small.
    assert check["value"] == pytest.approx(size, abs=0.01)
    forged = [one | {"passed": True, "bound": 2 * size} if one is check else one for one in record["checks"]]
    write_json(run.decision, record | {"verdict": "accepted", "checks": forged})
    assert promote(run) == ExitCode.INPUT_CORRUPT
    assert registry.champion("tiny") is None


def test_single_images_are_timed_without_the_first_ones(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = BackboneFiles("tiny-clip", read_digest(run), run.root / "backbone")
    payload_of(run.folder / "tune" / "coop-1", None, backbone, 10**6).write(tmp_path / "payload")
    for number, image in enumerate(run.images(2)):
        (tmp_path / f"plain-{number}").write_bytes(image)
    timing = {"requests": 4, "threads": 1, "files": ["plain-0", "plain-1"]}
    timings = [timing | {"device": device} for device in ("cpu", "cuda")]
    (tmp_path / "asked.json").write_text(json.dumps({"lists": {}, "timings": timings}))
    took = [100.0] * probe_script.WARM_UP + [1.0, 2.0, 3.0, 4.0]
    ticks = iter([tick for number, one in enumerate(took) for tick in (1000.0 * number, 1000.0 * number + one)])
    monkeypatch.setattr(probe_script, "perf_counter", lambda: next(ticks))
    probe_script.main(tmp_path)
    told = json.loads(capsys.readouterr().out)
    assert told["found"] == {}
    [cpu] = told["timed"]
    assert (cpu["device"], cpu["requests"], cpu["seconds"]) == ("cpu", 4, [1.0, 2.0, 3.0, 4.0])
    assert next(ticks, None) is None


def hold(run: Run, *rules: dict[str, Any]) -> None:
    """Hold the candidates to more rules."""
    values = yaml.safe_load((run.root / "params.yaml").read_text())
    values["gate"]["rules"] += rules
    (run.root / "params.yaml").write_text(yaml.safe_dump(values))


def clock(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> list[float]:
    """Let an image take so long in each process that tries a candidate out, one after the other; fills the list."""
    tried: list[float] = []

    def timed(*arguments: Any) -> tuple[Any, str]:
        answer, why = RUN(*arguments)
        took = seconds[len(tried)]
        tried.append(took)
        for one in answer["timed"]:
            assert len(one["seconds"]) == one["requests"]
            one["seconds"] = [took] * one["requests"]
        return answer, why

    monkeypatch.setattr("registry.probe._run", timed)
    return tried


def test_what_does_not_load_from_its_payload_alone_is_told(run: Run, tmp_path: Path) -> None:
    backbone = BackboneFiles("tiny-clip", read_digest(run), run.root / "backbone")
    payload = payload_of(run.folder / "tune" / "coop-1", None, backbone, 10**6)
    files = {name: content for name, content in payload.files.items() if name != "head.safetensors"}
    broken = type(payload)(files)
    shown = Shown(run.images(1), np.ones((1, 3)) / 3, run.card.class_ids, [decode_image(run.images(1)[0])])
    found = probe(broken, Trial(images=1), shown, tmp_path / "probe")
    assert found.problem is not None
    assert found.problem.startswith("it does not predict from its payload alone:")
    assert "head.safetensors" in found.problem


def test_the_model_card_keeps_to_its_schema_and_the_model_serves_what_was_fitted(run: Run, root: Path) -> None:
    assert schema() == (root / "registry" / "model_card.schema.json").read_text()
    assert promote(run) == 0
    champion = registry.champion("tiny")
    assert champion is not None
    card = read_json(champion.model_folder / "artifacts" / "record" / "model_card.json")
    jsonschema.validate(card, json.loads(schema()))
    for lost in ("use", "limits", "licences", "evaluation"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in card.items() if key != lost}, json.loads(schema()))
    assert card["licences"]["data"] == "CC0-1.0"
    measured = Metrics.read(run.folder / "metrics" / "coop-1.json").calibration
    fitted = read_json(champion.folder / "calibration.json")
    assert measured is not None
    assert fitted == measured.to_json() == card["calibration"] | {"format": 1}
    # Nine validation patients in all: one threshold for all classes.
    assert len(set(fitted["prediction_sets"]["thresholds"].values())) == 1
    table = champion.answers(run.images(5))
    for _, row in table.iterrows():
        told = [name for name in champion.classes if row[f"p_{name}"] >= fitted["prediction_sets"]["thresholds"][name]]
        assert row["prediction_set"] == told
    assert "abstain" not in table
    assert "No threshold to abstain by" in " ".join(card["limits"])


def read_digest(run: Run) -> str:
    record = yaml.safe_load((run.folder / "tune" / "coop-1" / "model.yaml").read_text())
    return str(record["backbone"]["digest"])
