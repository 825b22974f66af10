"""The review list and the decisions: `check --review`, `review`, `decide`, and what `describe` makes of them."""

import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml

from clinprompt.errors import DataRejected
from clinprompt.knowledge.__main__ import main
from clinprompt.knowledge.review.decisions import decisions_of, read_decisions, text_digest
from clinprompt.knowledge.review.page import write_review

TIE = (
    "On T2-weighted images a glioma of the brain is bright.",
    "The tumour of this brain looks dark on T2 scans again.",
)
HEAD = "class,digest,decision,by,reason,text\n"


@pytest.fixture
def folder(tmp_path: Path, card_file: Path) -> Path:
    """A card that names a file of decisions, and a table of texts."""
    card = yaml.safe_load(card_file.read_text()) | {"knowledge": {"decisions": "small.decisions.csv"}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(card))
    pd.DataFrame({"class": "glioma", "text": TIE}).to_csv(tmp_path / "texts.csv", index=False)
    return tmp_path


def run(folder: Path, command: str, file: str, *options: str) -> int:
    return main([command, "--card", str(folder / "small.yaml"), str(folder / file), *options])


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_what_is_decided_on_the_list_holds_in_the_next_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "small.decisions.csv").write_text(HEAD)
    out = ("--out", str(folder / "out.csv"), "--review", str(folder / "list"))
    assert run(folder, "check", "texts.csv", *out) == 0
    first = pd.read_csv(folder / "out.csv", keep_default_na=False)
    assert first["reason"].tolist() == ["undecided", "undecided"]
    listed = pd.read_csv(folder / "list" / "review.csv", dtype=str, keep_default_na=False)
    assert set(listed["text"]) == set(TIE)
    assert set(listed["digest"]) == {text_digest(text) for text in TIE}
    assert set(listed["why"]) == {"as many samples say the opposite"}
    listed.loc[listed["text"] == TIE[0], ["decision", "by", "reason"]] = ["accepted", "a reader", "=seen"]
    listed.to_csv(folder / "mine.csv", index=False)
    assert run(folder, "decide", "mine.csv") == 0
    assert "1 decisions, 1 new, 0 changed" in capsys.readouterr().out
    assert ",'=seen," in (folder / "small.decisions.csv").read_text()  # no formula for a spreadsheet
    assert run(folder, "check", "texts.csv", *out) == 0
    second = pd.read_csv(folder / "out.csv", keep_default_na=False)
    assert second["reason"].tolist() == ["", "contradiction"]
    assert second["reviewed"].tolist() == ["accepted by a reader: '=seen", ""]
    listed.loc[listed["text"] == TIE[0], "decision"] = "rejected"
    listed.to_csv(folder / "mine.csv", index=False)
    assert run(folder, "decide", "mine.csv") == 0
    assert "1 decisions, 0 new, 1 changed" in capsys.readouterr().out
    assert run(folder, "check", "texts.csv", *out) == 0
    third = pd.read_csv(folder / "out.csv", keep_default_na=False)
    assert third["reason"].tolist() == ["reviewed", ""]


def test_the_page_escapes_what_a_model_wrote_and_loads_nothing(folder: Path, card: object) -> None:
    bad = '</p><script>alert(1)</script><img src=x onerror=alert(2)> & "quotes" <!--ROWS-->'
    frame = pd.DataFrame({"text": [bad], "accepted": [False], "reason": ["<b>"], "review": ["<i>why</i>"]})
    assert write_review(folder / "list", frame, ["glioma"], card) == 1  # type: ignore[arg-type]
    page = Page((folder / "list" / "review.html").read_text())
    assert bad in page.words
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "b", "i", "link")]
    assert not any(key in ("src", "href") or key.startswith("on") for _, attrs in page.tags for key in attrs)
    fields = [attrs for tag, attrs in page.tags if tag == "fieldset"]
    assert fields == [{"data-class": "glioma", "data-digest": text_digest(bad)}]
    values = [attrs["value"] for tag, attrs in page.tags if tag == "input" and attrs["type"] == "radio"]
    assert values == ["accepted", "rejected", ""]


def test_a_formula_in_a_text_is_inert_and_is_decided_by_its_digest(folder: Path, card: object) -> None:
    text = '=HYPERLINK("x","The outline of a glioma")'
    frame = pd.DataFrame({"text": [text], "accepted": [True], "reason": [None], "review": ["doubt"]})
    write_review(folder / "list", frame, ["glioma"], card)  # type: ignore[arg-type]
    (row,) = csv.DictReader(io.StringIO((folder / "list" / "review.csv").read_text()))
    assert row["text"] == f"'{text}"
    assert row["digest"] == text_digest(text)


def test_a_folder_with_other_files_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "small.decisions.csv").write_text(HEAD)
    assert run(folder, "check", "texts.csv", "--out", str(folder / "o.csv"), "--review", str(folder)) == 64
    assert f"{folder} holds small.decisions.csv, and would be replaced" in capsys.readouterr().err
    assert (folder / "texts.csv").is_file()


def test_the_descriptions_of_a_run_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"class": ["glioma", "glioma", ""], "text": ["One.", "Two.", "Three."], "accepted": [True, False, True]}
    frame = pd.DataFrame({**columns, "reason": [None, "undecided", None], "review": [None, "tie", "other"]})
    frame.to_parquet(folder / "descriptions.parquet")
    assert run(folder, "review", "descriptions.parquet", "--out", str(folder / "list")) == 0
    assert capsys.readouterr().out.endswith("review.html: 1 descriptions to review\n")
    assert pd.read_csv(folder / "list" / "review.csv")["text"].tolist() == ["Two."]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("stroke,,accepted,me,why,text", "row 2: class: 'stroke' is none of the card's: glioma, adenoma, none"),
        ("glioma,,yes,me,why,text", "row 2: decision: expected accepted, rejected or nothing, found 'yes'"),
        ("glioma,12,accepted,me,why,text", "row 2: digest: expected the text's SHA-256 in hex, or nothing, found '12'"),
        ("glioma,,accepted,me,why,", "row 2: expected a digest or a text"),
        (f"glioma,{text_digest('as it was')},accepted,me,why,as it is", "row 2: digest: it is not that of the text"),
        ("glioma,,accepted,,why,text", "row 2: by: expected who decided and why"),
        ("glioma,,accepted,me,why,text\nglioma,,rejected,me,why,text", "row 3: decision: this text was accepted"),
    ],
)
def test_a_wrong_row_is_named(folder: Path, card: object, row: str, says: str) -> None:
    path = folder / "wrong.csv"
    path.write_text(f"{HEAD}{row}\n")
    with pytest.raises(DataRejected, match=says.replace("(", r"\(")):
        read_decisions(path, card)  # type: ignore[arg-type]


def test_a_card_that_names_no_file_or_one_that_is_missing(
    folder: Path, card: object, card_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decisions_of(card, card_file) == {}  # type: ignore[arg-type]
    assert main(["decide", "--card", str(card_file), str(folder / "texts.csv")]) == 64
    assert "knowledge.decisions: name the file that keeps decisions" in capsys.readouterr().err
    assert run(folder, "check", "texts.csv") == 66
    assert "knowledge.decisions: there is no file" in capsys.readouterr().err


def test_decisions_on_a_class_that_the_card_has_no_more_are_kept(
    folder: Path, card: object, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = "A stroke is a dark wedge in the brain that follows the territory of an artery."
    rows = [f"stroke,,accepted,a reader,seen so,{text}", f"insult,,rejected,a reader,seen so,{text}"]
    kept = folder / "small.decisions.csv"
    kept.write_text("\n".join(["class,digest,decision,by,reason,text", *rows]) + "\n")
    (folder / "texts.csv").write_text("class,text\nglioma,The glioma is an irregular mass in the brain with edema.\n")
    assert run(folder, "check", "texts.csv", "--encoder", "") == 0
    assert caplog.text.count("classes that the card does not have") == 1
    assert "2 decisions are on classes that the card does not have (insult, stroke)" in caplog.text
    (folder / "new.csv").write_text(f"class,digest,decision,by,reason,text\nglioma,,rejected,me,no,{text}\n")
    assert run(folder, "decide", "new.csv") == 0
    found = read_decisions(kept, card, former=True)  # type: ignore[arg-type]
    choices = {class_id: one.choice for (class_id, _), one in found.items()}
    assert choices == {"stroke": "accepted", "insult": "rejected", "glioma": "rejected"}
    assert {digest for _, digest in found} == {text_digest(text)}
