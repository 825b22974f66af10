"""What is expected of a table of descriptions before anything learns from it, evaluated with Great Expectations."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from clinprompt.validation.expectation import TableExpectation
from clinprompt.validation.gx import Outcome, run_suite

COUNT = "accepted "  # begins the names of the checks on the accepted descriptions of a class
# What must be told of where a description comes from: of a language model's, and of a person's.
GENERATED = ("aspect", "text", "provider", "llm", "revision", "digest", "prompt_digest", "seed")
WRITTEN = ("aspect", "text", "provider", "llm", "digest")
RISE = "rejected share"
_ROW, _VERDICT, _REJECTED, _TOLD = "row", "verdict", "rejected", "told"
_NAMED = 3  # rows in a sentence


def check_descriptions(
    table: pd.DataFrame,
    classes: Sequence[str],
    min_accepted: int,
    rejected_share: float | None = None,
    max_rise: float = 1.0,
    provenance: Sequence[str] = GENERATED,
) -> list[dict[str, Any]]:
    """The checks of a table of descriptions, as `verdict.json` has those of images: name, severity, passed, message.

    Args:
        table: the rows of classes, with at least class, text, accepted, reason and `provenance`.
        min_accepted: how many accepted descriptions each class needs.
        rejected_share: that of the descriptions that were released last; None: not known, and not compared.
        max_rise: how much the share of rejected ones may be above it.
        provenance: the columns that say where a description comes from, none of which may be empty.
    """
    suite = _suite(classes, min_accepted, rejected_share, max_rise, provenance)
    outcomes = run_suite(_prepared(table), suite, _ROW).outcomes
    checks = [_entry(outcome) for outcome in outcomes]
    if rejected_share is None:
        told = "Not checked: the card names no knowledge.rejected_share of a release before."
        checks.append({"name": RISE, "severity": "critical", "passed": None, "observed": None, "message": told})
    return checks


def failures(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sentences of the critical checks that failed."""
    return [check["message"] for check in checks if check["severity"] == "critical" and check["passed"] is False]


def _prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The table with what the expectations are on; an empty text counts as none."""
    accepted = table["accepted"].astype(bool)
    prepared = table.copy()
    prepared[_ROW] = [f"{label} {number}" for number, label in enumerate(table["class"], start=1)]
    prepared[_VERDICT] = accepted.map({True: "accepted", False: "rejected"}).astype("str")
    prepared[_REJECTED] = (~accepted).astype("float64")
    # Why: a reason, where one is needed, and none where it isn't.
    prepared[_TOLD] = (accepted == table["reason"].isna()).astype("float64")
    texts = prepared.select_dtypes(include=["object", "string"]).columns
    return prepared.assign(**{column: prepared[column].replace("", None) for column in texts})


def _suite(
    classes: Sequence[str],
    min_accepted: int,
    rejected_share: float | None,
    max_rise: float,
    provenance: Sequence[str],
) -> list[TableExpectation]:
    accepted = {_VERDICT: "accepted"}
    suite = [
        TableExpectation(
            "classes",
            "ExpectColumnValuesToBeInSet",
            "every description is of a class of the data",
            kwargs={"column": "class", "value_set": list(classes)},
        ),
        *(
            TableExpectation(
                f"{COUNT}{label}",
                "ExpectTableRowCountToBeBetween",
                f"the class {label} has at least {min_accepted} accepted descriptions",
                kwargs={"min_value": min_accepted},
                where=accepted | {"class": label},
            )
            for label in classes
        ),
        TableExpectation(
            "reasons",
            "ExpectColumnValuesToBeInSet",
            "a description has a reason exactly where it is rejected",
            kwargs={"column": _TOLD, "value_set": [1.0]},
        ),
        TableExpectation(
            "no duplicates",
            "ExpectCompoundColumnsToBeUnique",
            "no accepted description stands there twice for a class",
            kwargs={"column_list": ["class", "text"]},
            where=accepted,
        ),
        *(
            TableExpectation(
                f"{column} known",
                "ExpectColumnValuesToNotBeNull",
                f"every accepted description has a value in the column {column!r}",
                kwargs={"column": column},
                where=accepted,
            )
            for column in provenance
        ),
    ]
    if rejected_share is not None:
        most = min(1.0, rejected_share + max_rise)
        about = f"at most {most:.0%} of the descriptions are rejected, after {rejected_share:.0%} in the release before"
        suite.append(
            TableExpectation(
                RISE, "ExpectColumnMeanToBeBetween", about, kwargs={"column": _REJECTED, "max_value": most}
            )
        )
    return suite


def _entry(outcome: Outcome) -> dict[str, Any]:
    expectation = outcome.expectation
    about = f"{expectation.about[0].upper()}{expectation.about[1:]}."
    return {
        "name": expectation.name,
        "severity": expectation.severity,
        "passed": outcome.passed,
        "observed": outcome.observed,
        "message": about if outcome.passed else _sentence(outcome),
    }


def _sentence(outcome: Outcome) -> str:
    expected = f"Expected that {outcome.expectation.about}"
    if outcome.rows is None:
        found = f"{outcome.observed:.0%}" if isinstance(outcome.observed, float) else outcome.observed
        return f"{expected}; found {found}."
    named = ", ".join(outcome.offenders[:_NAMED])
    more = f" and {len(outcome.offenders) - _NAMED} more" if len(outcome.offenders) > _NAMED else ""
    listed = f" (class and row: {named}{more})" if named else ""
    return f"{expected}; not so for {outcome.observed} of {outcome.rows} descriptions{listed}."
