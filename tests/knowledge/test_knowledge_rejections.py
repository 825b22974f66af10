"""`python -m clinprompt.knowledge rejected`: the share of rejected descriptions now and in an earlier release."""

from pathlib import Path

import pandas as pd
import pytest

from clinprompt.knowledge.__main__ import main
from clinprompt.knowledge.rejections import rejected_share


def table(path: Path, **accepted: str) -> Path:
    """Of each class, "+" for an accepted description and "-" for a rejected one."""
    rows = [(name, mark == "+") for name, marks in accepted.items() for mark in marks]
    pd.DataFrame(rows, columns=["class", "accepted"]).to_parquet(path)
    return path


@pytest.fixture
def now(tmp_path: Path) -> Path:
    return table(tmp_path / "now.parquet", glioma="+--", none="+++", **{"": "----"})  # paraphrases are of no class


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return table(tmp_path / "before.parquet", none="++++", glioma="+++-", adenoma="--")


def test_the_share_is_told_by_class_and_of_all_and_so_is_its_rise(
    now: Path, before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rejected", str(now)]) == 0
    counted = "class,descriptions,rejected,share\nglioma,3,2,0.6667\nnone,3,0,0.0\n(all),6,2,0.3333\n"
    assert capsys.readouterr().out == counted
    assert main(["rejected", str(now), "--before", str(before)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "class,descriptions,rejected,share,share_before,rise"
    assert lines[1:] == ["glioma,3,2,0.6667,0.25,0.4167", "none,3,0,0.0,0.0,0.0", "(all),6,2,0.3333,0.3,0.0333"]
    assert main(["rejected", str(before), "--before", str(now)]) == 0
    assert "adenoma,2,2,1.0,,\n" in capsys.readouterr().out
    assert rejected_share(now) == 0.3333


def test_a_jump_has_its_exit_code(now: Path, before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = ["rejected", str(now), "--before", str(before), "--max-rise"]
    assert main([*same, "0.2"]) == 0
    capsys.readouterr()
    assert main([*same, "0.02"]) == 65
    told = capsys.readouterr()
    assert "33% of the descriptions are rejected, after 30% in " in told.err
    assert told.out.count("\n") == 4  # the table is there all the same


def test_what_can_t_be_compared_is_told(tmp_path: Path, now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rejected", str(now), "--max-rise", "0.2"]) == 64
    assert "name --before, too" in capsys.readouterr().err
    assert main(["rejected", str(tmp_path / "absent.parquet")]) == 66
    assert main(["rejected", str(table(tmp_path / "none.parquet", **{"": "+"}))]) == 65
    assert "holds no descriptions" in capsys.readouterr().err
