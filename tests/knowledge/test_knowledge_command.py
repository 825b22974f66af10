"""`python -m clinprompt.knowledge check`: a table of sentences in, the same with verdicts out."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.knowledge import SWAPS, gold, wilson
from clinprompt.knowledge.__main__ import main

TABLE = """class,text,author
glioma,A glioma is an irregular mass within the brain with a necrotic centre.,A
pituitary TUMOUR,The pituitary tumour is hypoechoic and lies beside the liver of this person.,B
0,"No mass, haemorrhage or glioma is seen, and the ventricles are symmetric.",C
glioma,,D
glioma,A glioma is an irregular mass within the brain with a necrotic center.,E
"""


def check(card: Path, texts: Path, *options: str) -> int:
    return main(["check", "--card", str(card), str(texts), *options])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text(TABLE)
    return path


def test_each_sentence_gets_a_verdict_beside_what_was_there(
    card_file: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    assert check(card_file, texts, "--out", str(out)) == 0
    frame = pd.read_csv(out, keep_default_na=False)
    assert list(frame.columns[:6]) == ["class", "text", "author", "accepted", "reason", "unjudged"]
    assert frame["author"].tolist() == list("ABCDE")
    assert frame["accepted"].tolist() == [True, False, True, False, False]
    assert frame["reason"].tolist() == ["", "wrong_modality", "", "unfinished", "duplicate"]
    assert frame["score_wrong_organ"].tolist() == [0, 1, 0, 0, 0]
    assert capsys.readouterr().out.startswith(f"{out}: 2 of 5 sentences accepted\n")
    first = out.read_bytes()
    assert check(card_file, texts, "--out", str(out)) == 0
    assert out.read_bytes() == first
    assert check(card_file, texts) == 0
    assert capsys.readouterr().out.endswith(first.decode())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "texts.csv"]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"class,sentence\nglioma,x\n", 65, "texts.csv has no column 'text'; it has 'class', 'sentence'"),
        (b"class,text\n", 65, "texts.csv has no rows below its header"),
        (
            b"class,text\nglioma,x\nstroke,x\n",
            65,
            "row 3: class: 'stroke' is none of the card's: glioma, adenoma, none",
        ),
        (b"class,text,reason\nglioma,x,y\n", 65, "has the column 'reason' already"),
        (b"class,text\nglioma,\xff\n", 67, "is not written in UTF-8"),
        (b"", 67, "is not a readable table"),
        (None, 66, "texts.csv is no file; expected a table (CSV) with the columns class and text"),
    ],
)
def test_a_table_that_cannot_be_judged_is_named(
    card_file: Path, tmp_path: Path, content: bytes | None, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, out = tmp_path / "texts.csv", tmp_path / "out.csv"
    if content is not None:
        texts.write_bytes(content)
    assert check(card_file, texts, "--out", str(out)) == code
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_the_table_that_is_read_is_not_written_over(
    card_file: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(card_file, texts, "--out", str(texts)) == 64
    assert "is the table that is read" in capsys.readouterr().err
    assert texts.read_text() == TABLE


def test_planted_swaps_are_found_and_true_sentences_pass_on_the_half_that_no_rule_was_made_on() -> None:
    """The published numbers are those of `python -m benchmarks.knowledge`."""
    rows = [row for row in gold() if row.half == "held_out"]
    swaps = [row.caught for row in rows if row.kind in SWAPS]
    true = [row.verdict.accepted for row in rows if row.kind == "true"]
    assert len(rows) >= 120
    assert sum(swaps) >= 0.95 * len(swaps)
    assert sum(true) >= 0.9 * len(true)


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(9, 10)  # Wilson 1927, as tabulated by Brown, Cai and DasGupta 2001's formula
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
