"""Great Expectations behind two calls: check a table, and render the results. Imported only when it is needed."""

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clinprompt.errors import BadParams
from clinprompt.validation.suite import TableExpectation

_META = "check"


@dataclass(frozen=True)
class Outcome:
    """How a check ended.

    Attributes:
        observed: the value that was found for a check of the whole table, or the number of offending rows.
        rows: how many rows were looked at; None for a check of the whole table.
        offenders: paths of the offending rows, in the table's order.
    """

    check: TableExpectation
    passed: bool
    observed: Any
    rows: int | None
    offenders: list[str]


@dataclass(frozen=True)
class SuiteResult:
    """The outcomes in the order of the checks, and Great Expectations' own result, in the SUMMARY format, to render."""

    outcomes: list[Outcome]
    result: Any


def evaluate(table: pd.DataFrame, checks: list[TableExpectation]) -> SuiteResult:
    """Evaluate the checks on the table.

    Raises:
        BadParams: a check of the card names no expectation, has wrong arguments or can't be evaluated on the table.
        RuntimeError: a built-in check crashed.
    """
    logging.getLogger("great_expectations").setLevel(logging.ERROR)  # it tells of each of its own parts
    import great_expectations as gx

    suite = gx.ExpectationSuite("images", expectations=[_expectation(check, table) for check in checks])
    batch = _batch(table)
    complete = {"result_format": "COMPLETE", "unexpected_index_column_names": ["path"]}
    found = _in_order(batch.validate(suite, result_format=complete), checks)
    outcomes = [_outcome(check, one) for check, one in zip(checks, found.results, strict=True)]
    return SuiteResult(outcomes, _in_order(batch.validate(suite, result_format="SUMMARY"), checks))


def _batch(table: pd.DataFrame) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types import base

    base.logger.setLevel(logging.ERROR)  # it has a level of its own
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = base.ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("images")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})


def _in_order(result: Any, checks: list[TableExpectation]) -> Any:
    by_name = {one.expectation_config.meta[_META]: one for one in result.results}
    result.results = [by_name[check.name] for check in checks]
    for check, one in zip(checks, result.results, strict=True):
        _raise_if_crashed(check, one)
    return result


def _expectation(check: TableExpectation, table: pd.DataFrame) -> Any:
    import great_expectations.expectations as known
    from pydantic.v1 import ValidationError

    kind: Any = getattr(known, check.type, None)
    is_known: bool = inspect.isclass(kind) and issubclass(kind, known.Expectation)
    if not is_known:
        raise BadParams(f"{check.key}.type: Great Expectations has no expectation named {check.type!r}.")
    for key in ("column", "column_A", "column_B"):
        column = check.kwargs.get(key)
        if isinstance(column, str) and column not in table.columns:
            columns = ", ".join(table.columns)
            raise BadParams(f"{check.key}.kwargs.{key}: there is no column {column!r}; the columns are {columns}.")
    extra: dict[str, Any] = {"row_condition": _condition(check.where)} if check.where else {}
    if not check.key:  # of the card's own, Great Expectations gives a better account
        extra["description"] = f"{check.about[0].upper()}{check.about[1:]} ({check.severity})"
    try:
        return kind(**check.kwargs, **extra, severity=check.severity, meta={_META: check.name})
    except (ValidationError, TypeError, ValueError) as error:
        raise BadParams(f"{check.key}.kwargs: {' '.join(str(error).split())}.") from None


def _condition(where: dict[str, str]) -> Any:
    from great_expectations.expectations.row_conditions import Column

    first, *others = [Column(column) == value for column, value in where.items()]
    for other in others:
        first &= other
    return first


def _outcome(check: TableExpectation, result: Any) -> Outcome:
    found = result.to_json_dict()["result"]
    offenders = [entry["path"] for entry in found.get("unexpected_index_list") or []]
    if "element_count" in found:
        return Outcome(check, bool(result.success), found["unexpected_count"], found["element_count"], offenders)
    return Outcome(check, bool(result.success), found.get("observed_value"), None, offenders)


def _raise_if_crashed(check: TableExpectation, result: Any) -> None:
    """A check that crashed is no verdict on the data: the card's arguments are wrong, or the program is."""
    info = result.exception_info or {}
    records = [info] if "raised_exception" in info else list(info.values())
    for record in records:
        if record["raised_exception"]:
            message = " ".join(str(record["exception_message"]).split())
            if check.key:
                raise BadParams(f"{check.key}: {check.type} can't be evaluated on the manifest: {message}.")
            raise RuntimeError(f"the check {check.name!r} crashed: {message}")
