"""Evaluate a suite of expectations on a table with Great Expectations, which is imported only when it is needed."""

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clinprompt.errors import BadParams
from clinprompt.validation.expectation import TableExpectation
from clinprompt.validation.shown import speaks_of_files

_META = "check"  # the key of an expectation's name in its meta data


@dataclass(frozen=True)
class Outcome:
    """The result of one expectation.

    Attributes:
        observed: the observed value of an expectation on the whole table, else the number of offending rows.
        rows: how many rows were looked at; None for an expectation on the whole table.
        offenders: the names of the offending rows, in the table's order.
    """

    expectation: TableExpectation
    passed: bool
    observed: Any
    rows: int | None
    offenders: list[str]


@dataclass(frozen=True)
class SuiteResult:
    """The results of a suite.

    Attributes:
        outcomes: one per expectation, in the suite's order.
        result: Great Expectations' own result, in its SUMMARY format, for the Data Docs page.
    """

    outcomes: list[Outcome]
    result: Any


def run_suite(table: pd.DataFrame, expectations: list[TableExpectation], row: str = "path") -> SuiteResult:
    """Evaluate the expectations on the table.

    Args:
        row: the column that names a row.

    Raises:
        BadParams: an expectation of the card has an unknown type or wrong arguments, or fails to evaluate.
        RuntimeError: a built-in expectation crashed.
    """
    logging.getLogger("great_expectations").setLevel(logging.ERROR)  # it logs each of its own steps
    import great_expectations as gx

    suite = gx.ExpectationSuite("images", expectations=[_expectation(e, table) for e in expectations])
    batch = _batch(table)
    with_offenders = {"result_format": "COMPLETE", "unexpected_index_column_names": [row]}
    complete = _in_order(batch.validate(suite, result_format=with_offenders), expectations)
    outcomes = [_outcome(e, result, row) for e, result in zip(expectations, complete.results, strict=True)]
    return SuiteResult(outcomes, _in_order(batch.validate(suite, result_format="SUMMARY"), expectations))


def _batch(table: pd.DataFrame) -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types import base

    base.logger.setLevel(logging.ERROR)  # it has a level of its own
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = base.ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("images")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})


def _in_order(result: Any, expectations: list[TableExpectation]) -> Any:
    """Great Expectations' result with its entries in the order of the expectations, after a look for crashes."""
    by_name = {validation.expectation_config.meta[_META]: validation for validation in result.results}
    result.results = [by_name[expectation.name] for expectation in expectations]
    for expectation, validation in zip(expectations, result.results, strict=True):
        _raise_if_crashed(expectation, validation)
    return result


def _expectation(expectation: TableExpectation, table: pd.DataFrame) -> Any:
    import great_expectations.expectations as catalogue
    from pydantic.v1 import ValidationError

    kind: Any = getattr(catalogue, expectation.type, None)
    is_known: bool = inspect.isclass(kind) and issubclass(kind, catalogue.Expectation)
    if not is_known:
        raise BadParams(f"{expectation.key}.type: Great Expectations has no expectation named {expectation.type!r}.")
    for key in ("column", "column_A", "column_B"):
        column = expectation.kwargs.get(key)
        if isinstance(column, str) and column not in table.columns:
            columns = ", ".join(table.columns)
            raise BadParams(
                f"{expectation.key}.kwargs.{key}: there is no column {column!r}; the columns are {columns}."
            )
    extra: dict[str, Any] = {"row_condition": _condition(expectation.where)} if expectation.where else {}
    if not expectation.key:  # those of the card are described better by Great Expectations itself
        extra["description"] = f"{expectation.about[0].upper()}{expectation.about[1:]} ({expectation.severity})"
    try:
        return kind(**expectation.kwargs, **extra, severity=expectation.severity, meta={_META: expectation.name})
    except (ValidationError, TypeError, ValueError) as error:
        raise BadParams(f"{expectation.key}.kwargs: {' '.join(str(error).split())}.") from None


def _condition(where: dict[str, str]) -> Any:
    from great_expectations.expectations.row_conditions import Column

    first, *others = [Column(column) == value for column, value in where.items()]
    for other in others:
        first &= other
    return first


def _outcome(expectation: TableExpectation, result: Any, row: str) -> Outcome:
    details = result.to_json_dict()["result"]
    offenders = [entry[row] for entry in details.get("unexpected_index_list") or []]
    if "element_count" in details:
        return Outcome(
            expectation, bool(result.success), details["unexpected_count"], details["element_count"], offenders
        )
    observed = details.get("observed_value")
    if speaks_of_files(expectation.kwargs) and not isinstance(observed, int | float):
        observed = "file names, which are not shown"
    return Outcome(expectation, bool(result.success), observed, None, offenders)


def _raise_if_crashed(expectation: TableExpectation, result: Any) -> None:
    """Raise for an expectation that crashed: no verdict on the data, but wrong arguments in the card or a bug."""
    exception_info = result.exception_info or {}
    exceptions = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    for exception in exceptions:
        if exception["raised_exception"]:
            message = " ".join(str(exception["exception_message"]).split())
            if expectation.key:
                raise BadParams(f"{expectation.key}: {expectation.type} can't be evaluated on the manifest: {message}.")
            raise RuntimeError(f"the check {expectation.name!r} crashed: {message}")
