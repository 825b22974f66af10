"""Sentences that a clinician wrote, in place of a language model's: from a card's file to the stage's outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import yaml
from describing import OUTPUTS, ROOT, call, settings

from clinprompt.errors import BadParams, InputMissing
from clinprompt.files import sha256_file
from clinprompt.knowledge import llm
from clinprompt.knowledge.outputs import read_descriptions
from clinprompt.params import load_params
from clinprompt.training.inputs import knowledge
from components.lock.fit import check_fit
from components.lock.settings import settings_lock

GLIOMA = "A glioma is an irregular mass inside the brain that is bright on T2-weighted images, with edema around it."
OTHER = "On MRI a glioma often has a thick, ragged rim that enhances around a dark necrotic centre."
NONE = "A brain MRI without a tumour shows symmetric ventricles and no mass or abnormal enhancement."
STRANGE = "The outline of the glioma looks like a double helix with multiple punctures in the brain tissue."


@pytest.fixture
def by_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose card names a file of reviewed descriptions; no language model can be loaded."""
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card["knowledge"] = {"descriptions": "small.csv"}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))

    def refuse(*_: Any) -> None:
        raise AssertionError("a language model is loaded")

    monkeypatch.setattr(llm, "_load_gguf", refuse)
    monkeypatch.setattr(llm, "_load_folder", refuse)
    return folder


def write(folder: Path, *rows: str, header: str = "class,text,aspect,author,date,accepted,reason") -> None:
    (folder / "small.csv").write_text("\n".join([header, *rows]) + "\n")


def run(folder: Path, **knowledge: Any) -> int:
    return call(folder, settings(folder, "descriptions"), **({"llm": None} | knowledge))


def message(capsys: pytest.CaptureFixture[str]) -> str:
    return str(json.loads(capsys.readouterr().out)["message"])


def test_the_result_tells_how_many_wait_for_a_person(by_hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = (
        "On T2-weighted images a glioma of the brain is bright.",
        "The tumour of this brain looks dark on T2 scans.",
    )
    write(by_hand, *(f"glioma,{text},,,,," for text in texts), f'no tumour,"{NONE}",,,,,')
    assert run(by_hand, min_accepted_per_class=0) == 0
    assert json.loads(capsys.readouterr().out)["waiting"] == 2


def test_a_card_with_reviewed_sentences_needs_no_language_model(
    by_hand: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        by_hand,
        f'Glioma,"{GLIOMA}",shape,neuroradiologist,2026-03-01,,',
        f'glioma,"{OTHER}",,,,,',
        f'no tumour,"{NONE}",,,,,',
        f'1,"{NONE}",,,,,',  # of a class that the data does not hold
    )
    assert run(by_hand, min_accepted_per_class=1) == 0
    frame = read_descriptions(by_hand / OUTPUTS[0])
    assert frame["text"].tolist() == [GLIOMA, OTHER, NONE]
    assert frame["class"].tolist() == ["glioma", "glioma", "none"]
    assert frame["accepted"].all()
    first = frame.iloc[0]
    assert (first["provider"], first["llm"], first["digest"]) == (
        "reviewed", "small.csv", sha256_file(by_hand / "small.csv"),
    )  # fmt: skip
    assert (first["aspect"], first["author"], first["written"]) == ("shape", "neuroradiologist", "2026-03-01")
    assert frame[["seed", "temperature", "prompt_digest"]].isna().all(axis=None)
    report = json.loads((by_hand / OUTPUTS[2]).read_text())
    assert report["llm"] is None
    assert report["reviewed"]["digest"] == first["digest"]
    assert report["reviewed"]["authors"] == ["neuroradiologist"]
    assert report["reviewed"]["absent"] == {"adenoma": 1}
    assert "sentences in small.csv are left out: adenoma (1)" in caplog.text
    read = knowledge_of(by_hand)
    assert read == ((GLIOMA, OTHER), (NONE,))


def knowledge_of(folder: Path) -> tuple[tuple[str, ...], ...]:
    """What methods read of the table."""
    from clinprompt.prompting.base import Needs

    needs = Needs("features", frozenset({"descriptions"}))
    return knowledge(needs, ["glioma", "none"], folder / OUTPUTS[0], None).descriptions


def test_a_rejected_sentence_stays_rejected_unless_its_row_says_why_not(by_hand: Path) -> None:
    write(by_hand, f'glioma,"{STRANGE}",,,,,', f'none,"{NONE}",,,,,')
    assert run(by_hand) == 0
    frame = read_descriptions(by_hand / OUTPUTS[0])
    assert frame["accepted"].tolist() == [False, True]
    why = frame["reason"][0]
    write(by_hand, f'glioma,"{STRANGE}",,,,yes,seen in two of our patients', f'none,"{NONE}",,,,,')
    assert run(by_hand) == 0
    frame = read_descriptions(by_hand / OUTPUTS[0])
    assert frame["accepted"].tolist() == [True, True]
    assert frame["override"].tolist() == [f"{why}: seen in two of our patients", ""]
    report = json.loads((by_hand / OUTPUTS[2]).read_text())
    assert report["reviewed"]["overruled"] == {"2": f"{why}: seen in two of our patients"}


def test_a_row_that_a_later_decision_rejects_overrules_nothing(by_hand: Path) -> None:
    write(by_hand, f'glioma,"{STRANGE}",,,,yes,seen in two of our patients', f'none,"{NONE}",,,,,')
    card = yaml.safe_load((by_hand / "small.yaml").read_text())
    card["knowledge"]["decisions"] = "small.decisions.csv"
    (by_hand / "small.yaml").write_text(yaml.safe_dump(card))
    decisions = f'class,digest,decision,by,reason,text\nglioma,,rejected,a reader,not so,"{STRANGE}"\n'
    (by_hand / "small.decisions.csv").write_text(decisions)
    assert run(by_hand) == 0
    row = read_descriptions(by_hand / OUTPUTS[0]).iloc[0]
    assert (row["accepted"], row["reason"], row["override"]) == (False, "reviewed", "")
    assert row["reviewed"] == "rejected by a reader: not so"
    assert json.loads((by_hand / OUTPUTS[2]).read_text())["reviewed"]["overruled"] == {}


def test_every_class_with_too_few_sentences_is_named(by_hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(by_hand, f'glioma,"{GLIOMA}",,,,,', f'glioma,"{STRANGE}",,,,,', f'1,"{NONE}",,,,,')
    assert run(by_hand, min_accepted_per_class=2) == 65
    told = message(capsys)
    assert "class glioma: 1 of 2 descriptions were accepted, 2 are needed; " in told
    assert "class none: 0 of 0 descriptions were accepted, 2 are needed; " in told


def test_a_class_with_too_few_sentences_is_named_with_what_to_do(
    by_hand: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(by_hand, f'glioma,"{GLIOMA}",,,,,')
    assert run(by_hand, min_accepted_per_class=1) == 65
    told = message(capsys)
    assert "class none: 0 of 0 descriptions were accepted, 1 are needed" in told
    assert "Add sentences to small.csv" in told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('stroke,"A sentence.",,,,,', "row 3: class: 'stroke' is none of the card's"),
        ("glioma,,,,,,", "row 3: the cell in column 'text' is empty"),
        ('glioma,"A sentence.",,,,maybe,', "row 3: accepted: expected yes or nothing, found 'maybe'"),
        ('glioma,"A sentence.",,,,yes,', "row 3: accepted: yes overrules the checks; say why in the column 'reason'"),
        ('glioma,"A sentence.",,,1 May,,', "row 3: date: expected YYYY-MM-DD, found '1 May'"),
    ],
)
def test_a_bad_row_is_named_by_its_number(
    by_hand: Path, capsys: pytest.CaptureFixture[str], row: str, told: str
) -> None:
    write(by_hand, f'none,"{NONE}",,,,,', row)
    assert run(by_hand) == 65
    assert told in message(capsys)
    assert not any((by_hand / name).exists() for name in OUTPUTS)


def test_a_column_that_nobody_reads_is_a_slip(by_hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(by_hand, f'glioma,"{GLIOMA}",yes', header="class,text,acepted")
    assert run(by_hand) == 65
    assert "has the column 'acepted'; known are class, text, aspect" in message(capsys)


def test_a_missing_file_and_a_wrong_encoding_are_named(by_hand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(by_hand) == 66
    assert "small.csv is no file" in message(capsys)
    (by_hand / "small.csv").write_bytes("class,text\nglioma,Ödem um ein Gliom.\n".encode("latin-1"))
    assert run(by_hand) == 67
    assert "small.csv is not written in UTF-8" in message(capsys)


def test_hidden_states_without_a_language_model_are_refused_with_what_to_do(
    by_hand: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(by_hand, f'glioma,"{GLIOMA}",,,,,', f'none,"{NONE}",,,,,')
    assert call(by_hand, settings(by_hand, "descriptions", "hidden_states"), llm=None) == 64
    told = message(capsys)
    assert "knowledge.llm: null names no language model" in told
    assert "hidden states come from a language model that runs here; name one in knowledge.llm" in told


def test_the_file_a_card_may_name_lies_beside_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = yaml.safe_load((folder / "small.yaml").read_text())
    (folder / "small.yaml").write_text(yaml.safe_dump(card | {"knowledge": {"descriptions": "../other.csv"}}))
    assert run(folder) == 64
    assert "knowledge.descriptions" in message(capsys)


def test_the_lock_knows_the_file_and_what_lacks_a_language_model(tmp_path: Path) -> None:
    import shutil

    for name in ("clinprompt", "components", "registry"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "datasets").mkdir()
    card = yaml.safe_load((ROOT / "datasets/brain-phantom.yaml").read_text())
    file = tmp_path / "datasets" / "brain-phantom.yaml"
    shutil.copy(ROOT / "datasets/brain-phantom.yaml", file)
    params = load_params(ROOT / "params.yaml")
    plain = yaml.safe_load(settings_lock(params, tmp_path))["datasets"]["brain-phantom"]["reviewed"]
    assert plain == ""
    file.write_text(yaml.safe_dump(card | {"knowledge": {"descriptions": "mine.csv"}}))
    with pytest.raises(InputMissing, match=r"knowledge\.descriptions: mine\.csv is not beside the card"):
        settings_lock(params, tmp_path)
    (tmp_path / "datasets" / "mine.csv").write_text("class,text\n")
    with_file = yaml.safe_load(settings_lock(params, tmp_path))["datasets"]["brain-phantom"]["reviewed"]
    assert with_file == sha256_file(tmp_path / "datasets" / "mine.csv")


@pytest.mark.parametrize(
    ("method", "reviewed", "told"),
    [
        ("cilmp", True, "hidden states come from a language model"),
        ("biomedcoop", False, "the card names no file of reviewed descriptions"),
        ("biomedcoop", True, None),
    ],
)
def test_who_lacks_a_language_model_is_told_before_anything_runs(
    tmp_path: Path, method: str, reviewed: bool, told: str | None
) -> None:
    from clinprompt.data.load import load_card

    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["candidates"]["taught"] = [method]
    values["knowledge"]["llm"] = None
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    card = yaml.safe_load((ROOT / "datasets/brain-phantom.yaml").read_text())
    card |= {"knowledge": {"descriptions": "mine.csv"}} if reviewed else {}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    params, of = load_params(tmp_path / "params.yaml"), load_card(tmp_path / "card.yaml")
    if told is None:
        check_fit(params, [of])
        return
    with pytest.raises(BadParams, match=told) as error:
        check_fit(params, [of])
    assert f"{method} on brain-phantom reads" in str(error.value)


def test_a_language_model_can_read_them_as_its_answer(folder: Path, llm_folder: Path) -> None:
    """Then hidden states are of what the checks accept, and descriptions are judged where only states are read."""
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card["knowledge"] = {"descriptions": "small.csv"}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))
    write(folder, *(f'glioma,"{text}",,,,,' for text in (GLIOMA, STRANGE, OTHER)), f'none,"{NONE}",,,,,')
    reads, tiny = settings(folder, "hidden_states"), {"llm": "tiny", "path": str(llm_folder)}
    assert call(folder, reads, states_of="descriptions", **tiny) == 0
    assert read_descriptions(folder / OUTPUTS[0])["accepted"].tolist() == [True, False, True, True]
    told = json.loads((folder / OUTPUTS[2]).read_text())["hidden_states"]
    assert told["of"] == "descriptions"
    answers = {name: (one["answer"], one["cut"]) for name, one in told["classes"].items()}
    assert answers == {"glioma": (f"{GLIOMA} {OTHER}", False), "none": (NONE, False)}
    of_descriptions = safetensors.numpy.load_file(folder / OUTPUTS[1])
    assert {name: rows.shape for name, rows in of_descriptions.items()} == {"glioma": (3, 32), "none": (3, 32)}
    assert call(folder, reads, **tiny) == 0
    assert json.loads((folder / OUTPUTS[2]).read_text())["hidden_states"]["of"] == "answers"
    assert len(read_descriptions(folder / OUTPUTS[0])) == 0
    own = safetensors.numpy.load_file(folder / OUTPUTS[1])
    assert not (own["glioma"] == of_descriptions["glioma"]).all()


def test_a_class_without_an_accepted_one_has_no_states_and_is_refused(
    folder: Path, llm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = yaml.safe_load((folder / "small.yaml").read_text())
    card["knowledge"] = {"descriptions": "small.csv"}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))
    write(folder, f'glioma,"{STRANGE}",,,,,', f'none,"{NONE}",,,,,')
    tiny = {"llm": "tiny", "path": str(llm_folder), "states_of": "descriptions"}
    assert call(folder, settings(folder, "hidden_states"), **tiny) == 65
    told = message(capsys)
    assert "class glioma: 0 of 1 descriptions were accepted, 1 are needed" in told
    assert told.endswith("or set knowledge.states_of: answers.")
    assert set(safetensors.numpy.load_file(folder / OUTPUTS[1])) == {"none"}
    assert call(folder, None, **tiny | {"hidden_states": "question_end_all_layers"}) == 64
    assert "states_of: descriptions change no state of the question's end" in message(capsys)
