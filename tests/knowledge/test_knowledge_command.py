"""`python -m clinprompt.knowledge check`: a table of sentences in, the same with verdicts out."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.knowledge import GOLD, KINDS, OF_FORM, ROOT, SWAPS, half_of, wilson
from clinprompt.data.load import load_card
from clinprompt.knowledge.__main__ import main
from clinprompt.knowledge.checks import CHECKS
from clinprompt.knowledge.texts import judged
from clinprompt.schema import read_yaml

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
        ("class,text\nglioma,x\n".encode("utf-16-be"), 67, "is not written in UTF-8"),
        (bytes(200), 67, "is not written in UTF-8"),
        (b"class,text\nglioma,a mass, bright\n", 67, "row 2 has more cells than the header has columns"),
        (b"class,text\nglioma,x\nglioma,a mass, bright\n", 67, "Expected 2 fields in line 3, saw 3"),
        (b"class,text,text\nglioma,x,y\n", 65, "has the column 'text' twice"),
        (b'class,"text","text "\nglioma,x,y\n', 65, "has the column 'text' twice"),
        (b"class,text,score_margin\nglioma,x,1\n", 65, "has the column 'score_margin' already"),
        (f"class,text\n{'x' * 9000},x\n".encode(), 65, "x…' is none of the card's"),
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
    assert len(told) < 1000
    assert not out.exists()


def test_tables_as_spreadsheets_and_r_write_them_are_read(card_file: Path, tmp_path: Path) -> None:
    text, texts, out = (
        '"A glioma is an irregular mass, within the brain."',
        tmp_path / "texts.csv",
        tmp_path / "out.csv",
    )
    forms = [
        f"\ufeffclass;text\r\nglioma;{text}\r\n",
        f"class\ttext\nglioma\t{text}\n",
        f"class,text\rglioma,{text}\r",
        f"class,text\n1,glioma,{text}\n2,glioma,{text}\n",  # with the names of its rows
    ]
    for form in forms:
        texts.write_bytes(form.encode())
        assert check(card_file, texts, "--out", str(out)) == 0
        assert pd.read_csv(out)["text"][0] == text.strip('"')


def test_nothing_that_a_table_brings_is_a_formula_where_it_is_opened_again(card_file: Path, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.csv", tmp_path / "out.csv"
    texts.write_text("class,text,@x,size\nglioma,\"=cmd|' /C calc'!A0\",+1+1,-3.5e-2\n")
    assert check(card_file, texts, "--out", str(out)) == 0
    row = pd.read_csv(out, dtype=str).iloc[0]
    assert row.index.tolist()[:4] == ["class", "text", "'@x", "size"]
    assert row.tolist()[:4] == ["glioma", "'=cmd|' /C calc'!A0", "'+1+1", "-3.5e-2"]


@pytest.mark.parametrize("verb", ["check", "review"])
@pytest.mark.parametrize("place", ["folder", ".", ""])
def test_no_folder_that_holds_something_is_replaced(
    card_file: Path,
    texts: Path,
    tmp_path: Path,
    verb: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    run = {"class": ["glioma"], "text": ["x"], "accepted": [True], "reason": [None], "review": [None]}
    pd.DataFrame(run).to_parquet(tmp_path / "run.parquet")
    monkeypatch.chdir(tmp_path / "folder" if place != "folder" else tmp_path)
    given = texts if verb == "check" else tmp_path / "run.parquet"
    assert main([verb, "--card", str(card_file), str(given), "--out", place]) == 64
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "kept", "run.parquet", "texts.csv"]


def test_the_table_that_is_read_is_not_written_over(
    card_file: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(card_file, texts, "--out", str(texts)) == 64
    assert "is the table that is read" in capsys.readouterr().err
    assert texts.read_text() == TABLE


@pytest.fixture(scope="module")
def judged_gold() -> pd.DataFrame:
    """The gold set as `check` judges each card's table, with its kinds, and whether a check of content failed."""
    tables = []
    for name, of_card in read_yaml(GOLD).items():
        of_class = of_card["sentences"].items()
        rows = [
            (i, t, "true" if k is True else k) for i, kinds in of_class for k, texts in kinds.items() for t in texts
        ]
        frame = pd.DataFrame(rows, columns=["class", "text", "kind"])
        table = judged(frame, frame["class"].tolist(), load_card(ROOT / "datasets" / f"{name}.yaml"))
        content = [check for check in CHECKS if check.name not in OF_FORM]
        failed = [~table[f"score_{c.name}"].fillna(c.low).between(c.low, c.high) for c in content]
        tables.append(table.assign(caught=pd.concat(failed, axis="columns").any(axis="columns"), card=name))
    return pd.concat(tables)


def test_the_gold_set_has_every_kind_of_several_cards_and_its_sources(judged_gold: pd.DataFrame) -> None:
    assert len(judged_gold) >= 240
    assert set(judged_gold["kind"]) == set(KINDS)
    assert judged_gold["card"].nunique() == 10
    assert all(of_card["sources"] and all(of_card["sources"]) for of_card in read_yaml(GOLD).values())
    assert not judged_gold["text"].duplicated().any()


def test_planted_swaps_are_found_and_true_sentences_pass_on_the_half_that_no_rule_was_made_on(
    judged_gold: pd.DataFrame,
) -> None:
    """The published numbers are those of `python -m benchmarks.knowledge`; a kind must not hide behind the others."""
    rows = judged_gold[judged_gold["text"].map(half_of) == "held_out"]
    assert len(rows) >= 120
    for kind in SWAPS:
        caught = rows.loc[rows["kind"] == kind, "caught"]
        assert len(caught) >= 20, kind
        assert caught.mean() >= 0.95, kind
    # What planted sentences say against a true one is no mistake of the checks that judge one by one.
    beside = rows["reason"].isin(["duplicate", "contradiction", "undecided"])
    true = rows["kind"] == "true"
    assert (rows["accepted"] | beside)[true].mean() >= 0.9


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(9, 10)  # Wilson 1927, as tabulated by Brown, Cai and DasGupta 2001's formula
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
