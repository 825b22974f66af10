"""Making a report of a run, and reading it."""

from html.parser import HTMLParser

import yaml
from fabricate import COMPONENTS, Run

from clinprompt.data.manifest import read_manifest, write_manifest
from components.report.__main__ import work
from components.runner import execute

VOID = {"meta", "img", "br", "link", "hr"}


def report(run: Run) -> str:
    """Make the report through its component; its HTML."""
    assert execute("report", work, run.report_options(), COMPONENTS) == 0
    return (run.folder / "report.html").read_text(encoding="utf-8")


def registry_report(run: Run) -> str:
    """The copy that goes with the registered model."""
    report(run)
    return (run.folder / "report" / "registry" / "report.html").read_text(encoding="utf-8")


def taught(run: Run, kind: str = "descriptions") -> None:
    """Let the chosen model be one that reads descriptions, or another kind of knowledge."""
    file = run.folder / "tune" / "coop-1" / "model.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"knowledge": {kind: "a" * 64}}))


def forget_patients(run: Run, keep: int = 0) -> None:
    """Let the manifest name the patients of `keep` images only."""
    path = run.folder / "validate" / "manifest.parquet"
    rows = read_manifest(path)
    write_manifest(rows.assign(patient=rows["patient"].where(rows.index < keep, None)), path)


class Page(HTMLParser):
    """Collects texts, addresses and unclosed elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.addresses, self.open, self.ids, self.tags = "", [], [], set(), []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids |= {value for key, value in attrs if key == "id"}
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "data", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
