"""Data Docs as one page that is readable offline: Great Expectations' renderer in a frame and style of its own."""

import html
import itertools
import re
from pathlib import Path
from typing import Any

from clinprompt.validation.shown import speaks_of_files

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL)  # charts, drawn by a library from elsewhere
_BLANK = re.compile(r"\n\s*\n+")


def render(result: Any, title: str, record: dict[str, Any]) -> str:
    """The page, as HTML, of a validation: Great Expectations' result and the verdict's record.

    Equal inputs give equal text, and nothing in it is fetched from elsewhere.
    """
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    result.meta = {}  # load time, data fingerprint and the like would make the page differ from run to run
    for validation in result.results:
        hidden = speaks_of_files(validation.expectation_config.kwargs)
        validation.result = _escaped(_counts_only(validation.result) if hidden else validation.result)
    document = ValidationResultsPageRenderer().render(result)
    # The first section is an overview by Great Expectations' success flag, which knows no severities.
    document.sections = document.sections[1:]
    view = DefaultJinjaPageView(custom_views_directory=str(_TEMPLATES))
    numbers = itertools.count(1)
    view.env.filters["generate_html_element_uuid"] = lambda prefix=None: f"{prefix or ''}{next(numbers)}"
    page: str = view.render(document, template="data_docs.j2", title=title, record=record)
    return _BLANK.sub("\n", _SCRIPT.sub("", page))


def _counts_only(result: dict[str, Any]) -> dict[str, Any]:
    """A result with its numbers, and nothing in place of the values that were found, which are names of files."""
    empty: dict[type, Any] = {list: [], dict: {}, str: "not shown"}
    return {key: empty.get(type(value), value) for key, value in result.items()}


def _escaped(value: Any) -> Any:
    """A value with its strings HTML-escaped: Great Expectations does not escape cells, which hold a table's texts."""
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, dict):
        return {key: _escaped(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_escaped(entry) for entry in value)
    return value
