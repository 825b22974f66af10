"""The report: everything in one file, and nothing that the inputs can smuggle in."""

import base64
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from fabricate import COMPONENTS, Run
from pages import Page, forget_patients, report, taught

from clinprompt.files import read_json, write_json
from clinprompt.tuned.failure import TrainingFailure
from components.report.__main__ import work
from components.report.figures import Chart, curve_charts
from components.runner import execute

SVG = "{http://www.w3.org/2000/svg}"


def test_it_is_one_file_that_asks_for_nothing(run: Run) -> None:
    html = report(run)
    page = Page(html)
    assert page.open == []
    assert "script" not in page.tags
    assert all(
        address.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,", "#")) for address in page.addresses
    )
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.ids
    assert not re.search(r"https?://|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_same_inputs_give_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first = report(run)
    shutil.copytree(run.root, tmp_path / "elsewhere")
    assert report(Run(tmp_path / "elsewhere")) == first
    assert str(tmp_path) not in first


def test_it_shows_the_decision_with_every_bound_and_interval(run: Run) -> None:
    text = Page(report(run)).text
    decision = read_json(run.decision)
    assert "ACCEPTED" in text
    for reason in decision["reasons"]:
        assert reason in text
    for check in decision["checks"]:
        for key in ("value", "low", "high", "bound"):
            assert f"{check[key]:.3f}" in text
    for candidate in decision["candidates"]:
        estimate = candidate["test"]["balanced_accuracy"]
        assert f"{estimate['value']:.3f}{estimate['low']:.3f} to {estimate['high']:.3f}" in text


def test_data_and_descriptions_appear_as_text_and_never_as_markup(run: Run) -> None:
    taught(run)
    html = report(run)
    text = Page(html).text
    assert "<b>uneven</b>" in text
    assert "<script>alert(1)</script>" in text
    assert "<script" not in html
    assert "dark square: 1 of 2 accepted" in text
    assert "Near pairs across splits" in text
    assert "all: 0, test and train: 0" in text


def test_without_patient_ids_the_top_says_that_nothing_was_checked(run: Run) -> None:
    assert "its interval, over patients, each left out in turn;" in Page(report(run)).text
    forget_patients(run)
    text = Page(report(run)).text
    assert text.index("Not checked: the card names no patients.") < text.index("What was required")
    assert "its interval, over images, each left out in turn;" in text
    assert "over patients, each" not in text
    assert "Patients" not in text


def test_with_some_patient_ids_the_top_counts_the_others(run: Run) -> None:
    forget_patients(run, keep=6)
    text = Page(report(run)).text
    assert "Not checked for 60 of 66 images: their patient is not known." in text
    assert "over patients (images where the patient is not known)" in text


def test_descriptions_are_shown_only_where_the_model_reads_them_and_as_a_machine_s(run: Run) -> None:
    text = Page(report(run)).text
    assert "Descriptions" not in text
    assert "with four sides" not in text
    taught(run)
    text = Page(report(run)).text
    assert "Descriptions, written by a machine" in text
    assert "No clinician has checked them." in text


def test_accepted_and_rejected_descriptions_stand_side_by_side_with_reasons(run: Run) -> None:
    path = run.folder / "describe" / "descriptions.parquet"
    frame = pd.read_parquet(path)
    label = frame["class"].iloc[0]
    rows = [
        ("Seen by one.", True, None, None, "accepted by <i>one</i>: seen"),
        ("Said so.", False, "contradiction", "one other sample says the opposite", None),
        ("Said twice.", False, "near_duplicate", None, None),
    ]
    columns = ["text", "accepted", "reason", "review", "reviewed"]
    more = pd.DataFrame(rows, columns=columns).assign(**{"class": label, "aspect": "shape"})
    pd.concat([frame, more]).to_parquet(path)
    taught(run)
    html = report(run)
    text = Page(html).text
    assert "accepted by <i>one</i>: seen" in text
    assert "more samples say the opposite (contradiction)" in text
    assert "to review one other sample says the opposite" in text
    assert "says what one accepted before says (near_duplicate)" in text
    assert "1 were decided by a person, the others by nobody. 1 wait for a person" in text
    assert html.count('class="sides"') == frame["class"].nunique()


def test_paraphrases_are_shown_where_the_model_reads_them(run: Run) -> None:
    path = run.folder / "describe" / "descriptions.parquet"
    frame = pd.read_parquet(path)
    told = {"class": "", "aspect": "report_shows", "text": "A scan of {label}, age {age}.", "accepted": True}
    pd.concat([frame, pd.DataFrame([told])]).to_parquet(path)
    taught(run)
    assert "A scan of {label}" not in Page(report(run)).text
    taught(run, "paraphrases")
    text = Page(report(run)).text
    assert "What a language model wrote about the reports that are read in training, and what" in text
    assert "reports: 1 of 1 accepted" in text
    assert "A scan of {label}, age {age}." in text
    assert "with four sides" not in text


def test_a_slice_that_was_left_out_is_named(run: Run) -> None:
    path = run.folder / "metrics" / "coop-1.json"
    write_json(path, read_json(path) | {"not_sliced": {"age_band": "it is known of no image"}})
    assert "By age band: left out; it is known of no image." in Page(report(run)).text


def test_it_names_code_backbone_and_version(run: Run) -> None:
    text = Page(report(run)).text
    assert "Built on tiny-clip: a backbone of your own." in text
    assert "Registered: by the stage promote, as the version whose tag decision_digest" in text
    assert re.search(r"Code: (commit [0-9a-f]{40}(-dirty)? of \d{4}-\d\d-\d\d|not from a git checkout)", text)
    decision = read_json(run.decision)
    decision["champion"] = {"name": "tiny", "version": "7", "model_digest": decision["chosen"]["model_digest"]}
    write_json(run.decision, decision)
    text = Page(report(run)).text
    assert "Registered: version 7, models:/tiny/7." in text
    assert "is the champion already, version 7 of tiny." in text
    assert "may become the champion" not in text


def test_an_organ_that_the_card_leaves_open_is_not_told(run: Run) -> None:
    assert " of the brain, " in Page(report(run)).text
    card = run.root / "datasets" / "tiny.yaml"
    card.write_text(card.read_text().replace("organ: brain", "organ: unknown"))
    assert "of the unknown" not in Page(report(run)).text


def test_the_demo_s_backbone_is_said_to_have_seen_no_scan(run: Run) -> None:
    file = run.folder / "tune" / "coop-1" / "model.yaml"
    record = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(record | {"backbone": record["backbone"] | {"name": "demo-clip"}}))
    assert "never saw a scan" in Page(report(run)).text


def test_a_rejection_shows_the_best_candidate(run: Run) -> None:
    assert run.decide("coop-1", "zero_shot-1", floor=1.0)["chosen"] is None
    text = Page(report(run)).text
    assert "REJECTED" in text
    assert "No candidate may be promoted" in text
    assert "coop, seed 1, the best on the validation split" in text
    assert "failed" in text


def test_it_says_which_decision_on_the_test_split_it_is(run: Run) -> None:
    assert "it is decision" not in Page(report(run)).text
    decision = read_json(run.decision)
    decision["held_out"] = {"digest": "a" * 64, "images": 30, "number": 3, "at_most": 50, "alpha": 0.0020833}
    write_json(run.decision, decision)
    assert (
        "one-sided bound at alpha 0.00208. On these 30 test images it is decision 3 of at most 50: each takes its "
        "share of the alpha of 0.025 that all of them together may err with."
    ) in Page(report(run)).text


def test_what_the_ends_of_an_interval_are_is_said_by_the_rules(run: Run) -> None:
    assert "Each end of an interval is a one-sided bound at alpha 0.025." in Page(report(run)).text
    decision = read_json(run.decision)
    [floor] = [check for check in decision["checks"] if check["rule"] == "floor"]
    timed = floor | {"rule": "latency", "name": "latency", "side": "at_most", "bound": 200.0, "ends": "quartiles"}
    size = floor | {"rule": "payload_size", "name": "payload_size", "side": "at_most", "bound": 50.0, "ends": "value"}
    decision["checks"] += [timed, size]
    write_json(run.decision, decision)
    text = Page(report(run)).text
    assert "at alpha 0.025. Of latency the ends are quartiles of what was measured. Of payload size the value" in text
    assert "upper quartile at most 200.000" in text
    assert "value at most 50.000" in text
    decision["checks"] = [timed]
    write_json(run.decision, decision)
    assert "one-sided bound" not in Page(report(run)).text


def test_who_is_shown_was_the_best_of_those_that_could_be_picked(run: Run) -> None:
    assert run.decide("coop-1", "zero_shot-1", floor=1.0)["chosen"] is None
    decision = read_json(run.decision)
    decision["candidates"][0]["not_eligible"] = "it has no answers to the novel classes"
    write_json(run.decision, decision)
    shown = "zero_shot, seed 1, the best on the validation split of those that can be held to all rules."
    assert shown in Page(report(run)).text


def test_the_champion_that_it_was_compared_with_is_named(run: Run) -> None:
    decision = read_json(run.decision)
    decision["champion"] = {"name": "tiny", "version": "7", "model_digest": "a" * 64}
    write_json(run.decision, decision)
    assert "in place of version 7 of tiny" in Page(report(run)).text


def test_candidates_that_were_not_measured_leave_gaps_and_no_crash(run: Run) -> None:
    decision = read_json(run.decision)
    decision.update(verdict="rejected", chosen=None, checks=[], reasons=["coop-1: there are no predictions"])
    for candidate in decision["candidates"]:
        candidate.update(val=None, test=None, model_digest=None)
    write_json(run.decision, decision)
    text = Page(report(run)).text
    assert "REJECTED" in text
    assert "Examples" not in text


def test_absent_plots_curves_and_slices_are_left_out(run: Run) -> None:
    shutil.rmtree(run.folder / "evaluate" / "coop-1" / "plots")
    (run.folder / "tune" / "coop-1" / "curves.csv").unlink()
    metrics = read_json(run.folder / "metrics" / "coop-1.json")
    metrics["slices"] = {}
    write_json(run.folder / "metrics" / "coop-1.json", metrics)
    text = Page(report(run)).text
    assert "Confusion matrix" not in text
    assert "Training" not in text
    assert "Slices" not in text


def test_a_missing_decision_is_said_in_one_sentence(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.decision.unlink()
    assert execute("report", work, run.report_options(), COMPONENTS) == 66
    assert "decision.json does not exist" in capsys.readouterr().err


def drawing(chart: Chart) -> bytes:
    kind, _, data = chart.source.partition(";base64,")
    assert kind == "data:image/svg+xml"
    return base64.b64decode(data)


def points(chart: Chart, column: str) -> list[tuple[float, float]]:
    """The points of a column's line, in the SVG's units; y grows downwards."""
    tree = ElementTree.fromstring(drawing(chart))  # noqa: S314 - it was drawn here
    group = next(g for g in tree.iter(f"{SVG}g") if g.get("id") == column)
    path = next(path for path in group.iter(f"{SVG}path") if path.get("clip-path"))
    numbers = [float(word) for word in (path.get("d") or "").split() if word not in ("M", "L")]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_curves_show_each_epoch_in_its_place() -> None:
    losses = [2.0 / (e + 1) for e in range(50)]
    curves = pd.DataFrame({"epoch": range(50), "loss": losses, "val_accuracy": [None, 0.5] * 25, "train_accuracy": 0.7})
    loss, accuracy = curve_charts(curves)
    assert (loss.title, accuracy.title) == ("Training loss", "Accuracy")
    x, y = np.array(points(loss, "loss")).T
    assert np.corrcoef(x, range(50))[0, 1] == pytest.approx(1)
    assert np.corrcoef(y, losses)[0, 1] == pytest.approx(-1)
    assert len(points(accuracy, "val_accuracy")) == 25  # epochs without a value are bridged
    heights = [points(accuracy, name)[0][1] for name in ("val_accuracy", "train_accuracy")]
    assert heights[0] > heights[1]
    assert curve_charts(curves.head(1)) == []


def test_equal_curves_give_equal_bytes_that_name_no_date() -> None:
    curves = pd.DataFrame({"epoch": [0, 1, 2], "loss": [3.0, 2.0, 1.0]})
    first, second = (drawing(curve_charts(curves)[0]) for _ in range(2))
    assert first == second
    assert b"date" not in first.lower()


def test_a_candidate_that_could_not_be_trained_is_named_with_the_reason(run: Run) -> None:
    for file in (run.folder / "tune" / "zero_shot-1").iterdir():
        file.unlink()
    failure = TrainingFailure(dataset="tiny", candidate="zero_shot", method="zero_shot", seed=1, reason="it diverged")
    failure.write(run.folder / "tune" / "zero_shot-1" / "failed.json")
    assert run.decide("coop-1", "zero_shot-1")["verdict"] == "accepted"
    text = Page(report(run)).text
    assert "zero_shot-1 was not trained: it diverged" in text
    assert "not trained: it diverged" in text.replace("zero_shot-1 was not trained", "")


FORGED = {
    "a list": lambda verdict: [verdict],
    "no counts": lambda verdict: verdict | {"counts": None},
    "checks of text": lambda verdict: verdict | {"checks": ["passed"]},
    "leaks as a list": lambda verdict: verdict | {"leaks": [1]},
    "an image from elsewhere": lambda verdict: (
        verdict | {"dropped": [verdict["dropped"][0] | {"twin_file": "/somewhere/else.png"}]}
    ),
    "a flagged image above": lambda verdict: (
        verdict | {"flagged": [verdict["dropped"][0] | {"file": "../../else.png", "checks": []}]}
    ),
    "an image above": lambda verdict: verdict | {"dropped": [verdict["dropped"][0] | {"file": "../../else.png"}]},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_verdict_is_refused(run: Run, capsys: pytest.CaptureFixture[str], what: str) -> None:
    path = run.folder / "validate" / "evidence" / "verdict.json"
    write_json(path, FORGED[what](read_json(path)))
    assert execute("report", work, run.report_options(), COMPONENTS) == 67
    assert "verdict.json is not what the validate stage writes" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\x00\xff"])
def test_curves_that_are_no_table_are_told(run: Run, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (run.folder / "tune" / "coop-1" / "curves.csv").write_bytes(content)
    assert execute("report", work, run.report_options(), COMPONENTS) == 67
    assert "curves.csv is not a table" in capsys.readouterr().err


def test_a_choice_that_is_no_candidate_is_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    decision = read_json(run.decision)
    decision["chosen"]["folder"] = "../coop-1"
    write_json(run.decision, decision)
    assert execute("report", work, run.report_options(), COMPONENTS) == 67
    assert "chooses '../coop-1', which is none of its candidates" in capsys.readouterr().err
