"""A bar that goes on starts where it was."""

import pytest

from clinprompt.progress import progress


def test_a_resumed_bar_starts_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(40, 50), "training", 50, "epoch", 40)) == list(range(40, 50))
    err = capsys.readouterr().err
    assert "40/50" in err
    assert "0/10" not in err


def test_a_new_one_starts_at_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), "counting")) == [0, 1, 2]
    assert "0/3" in capsys.readouterr().err
