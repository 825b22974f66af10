"""A bar that goes on starts where it was; one within another waits until it is needed."""

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


def test_a_round_within_a_loop_has_a_bar_only_if_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), "epoch 1 of 9", nested=True)) == [0, 1, 2]
    assert capsys.readouterr().err.strip() == ""
