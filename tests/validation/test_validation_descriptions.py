"""The expectations on a table of descriptions: counts, reasons, duplicates, provenance, the share of rejected ones."""

from typing import Any

import pandas as pd
import pytest

from clinprompt.validation.descriptions import check_descriptions, failures


@pytest.fixture
def table() -> pd.DataFrame:
    texts = {"class": ["a", "a", "b", "b"], "text": ["One.", "Two.", "Three.", "Four."]}
    verdicts = {"accepted": [True, True, True, False], "reason": [None, None, None, "length"]}
    same = {
        "aspect": "shape",
        "provider": "local",
        "llm": "m",
        "revision": "r",
        "digest": "d",
        "prompt_digest": "p",
        "seed": 0,
    }
    return pd.DataFrame({**texts, **verdicts, **same})


def check(table: pd.DataFrame, *others: Any) -> list[str]:
    return failures(check_descriptions(table, ["a", "b"], *(others or (1,))))


def test_a_table_as_it_should_be_passes_and_says_what_was_not_compared(table: pd.DataFrame) -> None:
    checks = check_descriptions(table, ["a", "b"], 1)
    assert not failures(checks)
    assert [c["message"] for c in checks if c["passed"] is None] == [
        "Not checked: the card names no knowledge.rejected_share of a release before."
    ]


def test_the_class_that_lacks_some_is_named(table: pd.DataFrame) -> None:
    expected = "Expected that the class b has at least 2 accepted descriptions; found 1."
    assert check(table, 2) == [expected]


def test_copies_among_the_accepted_are_found_and_among_the_rejected_are_not(table: pd.DataFrame) -> None:
    assert not check(table.assign(text=["One.", "Two.", "Three.", "Three."]))
    (told,) = check(table.assign(text=["One.", "One.", "Three.", "Four."]))
    assert "no accepted description stands there twice for a class; not so for 2 of 3" in told
    assert "(class and row: a 1, a 2)" in told
    assert not check(table.assign(text=["One.", "Two.", "One.", "Four."]))  # of another class


@pytest.mark.parametrize("value", ["", None])
def test_a_description_from_nowhere_is_found(table: pd.DataFrame, value: str | None) -> None:
    (told,) = check(table.assign(revision=["r", value, "r", "r"]))
    assert "has a value in the column 'revision'; not so for 1 of 3 descriptions (class and row: a 2)" in told
    assert not check(table.assign(revision=["r", "r", "r", value]))  # what is rejected teaches nothing


def test_a_reason_stands_exactly_where_one_is_needed(table: pd.DataFrame) -> None:
    for reasons in ([None, None, None, None], [None, "length", None, "length"]):
        (told,) = check(table.assign(reason=reasons))
        assert "a reason exactly where it is rejected" in told


def test_a_jump_of_the_rejected_share_is_found(table: pd.DataFrame) -> None:
    assert not check(table, 1, 0.1, 0.2)
    (told,) = check(table, 1, 0.0, 0.2)
    assert told == (
        "Expected that at most 20% of the descriptions are rejected, after 0% in the release before; found 25%."
    )


def test_a_class_that_the_data_does_not_have(table: pd.DataFrame) -> None:
    (told,) = check(table.replace({"class": {"b": "c"}}), 0)
    assert "every description is of a class of the data; not so for 2 of 4" in told
