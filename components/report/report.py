"""Gather what the stages wrote, and fill the report's template, with and without pictures of patients.

Equal inputs give equal bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from clinprompt.data.card import Card
from clinprompt.data.dataset import Dataset
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.calibration_record import Covered, PredictionSets
from clinprompt.evaluation.decision import DecisionRecord, MeasuredCandidate
from clinprompt.evaluation.estimate import Estimate, range_text
from clinprompt.evaluation.metric_names import OVERALL, PER_CLASS, SCORE
from clinprompt.evaluation.metrics_record import Metrics, ScoreMetrics, SliceMetrics
from clinprompt.evaluation.table import patient_count
from clinprompt.files import read_json, sha256_file
from clinprompt.knowledge.reasons import told
from clinprompt.parquet import read_frame
from clinprompt.reports.frame import OF_NO_CLASS
from clinprompt.tuned.record import ModelRecord
from components.report.figures import curve_charts, data_uri
from components.report.images import dropped_pairs, examples, flagged_images
from components.report.origin import model_record, origin
from components.report.verdict import read_verdict

FIRST = "balanced_accuracy"  # of the metrics shown
PLOTS = {
    "confusion": "Confusion matrix",
    "roc": "ROC curves",
    "reliability": "Reliability",
    "projection": "Image features",
    "score": "Estimated score",
}
MOST_LISTED = 20  # dropped and flagged images and rejected descriptions that are shown one by one


@dataclass(frozen=True)
class Sources:
    """The files and folders that the report is made from; the names are those of component.yaml."""

    card: Path
    manifest: Path
    images: Path
    evidence: Path
    descriptions: Path
    models: Path
    evaluations: Path
    metrics: Path
    decision: Path
    pictures: Path | None = None


@dataclass(frozen=True)
class Pages:
    """The report as HTML: with pictures of patients, for who may see them, and without, for the registry."""

    full: str
    for_registry: str


def build(sources: Sources) -> Pages:
    """Make the report.

    Raises:
        InputMissing: the decision, the verdict on the data, the card or the manifest is missing.
        InputCorrupt: one of them can't be read.
    """
    dataset = Dataset.open(sources.card, sources.manifest, sources.images)
    card, decision = dataset.card, DecisionRecord.read(sources.decision)
    shown = decision.shown()
    names = {info.id: info.name for info in card.named}
    model = model_record(sources.models, shown)
    reads = {} if model is None else _sentences(model, card)
    facts = origin(_digests(sources, bool(reads)), decision, shown, model)
    verdict = read_verdict(sources.evidence / "verdict.json")
    context = {
        "card": card,
        "decision": decision,
        "shown": shown,
        "names": names,
        "metrics": {key: OVERALL[key] for key in (FIRST, *(key for key in OVERALL if key != FIRST))},
        "class_metrics": PER_CLASS,
        "score_metrics": SCORE,
        "headline": _headline(shown),
        "data": _data(verdict, card),
        "pairs": dropped_pairs(verdict["dropped"][:MOST_LISTED], sources.images, card),
        "flagged": flagged_images(verdict["flagged"][:MOST_LISTED], sources.images, card),
        "patients": patient_count(dataset.rows),
        "knowledge": _knowledge(sources.descriptions, reads) if reads else None,
        "of_reports": OF_NO_CLASS in reads,
        "candidate": _candidate(sources, shown) if shown else None,
        "examples": examples(sources.evaluations / shown.name, dataset) if shown else None,
        "looks": _looks(sources, card) if shown else None,
        "origin": facts,
        "most_listed": MOST_LISTED,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": range_text}
    template = environment.get_template("template.html.j2")
    return Pages(*(template.render(context | {"with_images": with_images}) for with_images in (True, False)))


def _digests(sources: Sources, reads: bool) -> dict[str, str]:
    files = {"card": sources.card, "manifest": sources.manifest, "decision": sources.decision}
    if reads:
        files["descriptions"] = sources.descriptions
    return {name: sha256_file(path) for name, path in files.items()}


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table."""
    return "–" if value is None else f"{value:.{digits}f}"


def _headline(shown: MeasuredCandidate | None) -> list[dict[str, Any]]:
    if shown is None:
        return []
    test = shown.test or {}
    keys = [FIRST, "auroc", "macro_f1", "ece"]
    return [{"metric": OVERALL[key], "estimate": test.get(key)} for key in keys]


def _data(verdict: dict[str, Any], card: Card) -> dict[str, Any]:
    counts = verdict["counts"]
    totals = {split: sum(row.values()) for split, row in counts.items()}
    found = verdict.get("leaks") or {}
    leaks = {key.replace("_", " "): "not checked" if value is None else _plain(value) for key, value in found.items()}
    checks = sorted(verdict["checks"], key=lambda check: (bool(check["passed"]), check["severity"]))
    data = {"not_looked_for": "", **verdict}
    return {**data, "totals": totals, "classes": card.named_ids, "leaks": leaks, "checks": checks}


def _plain(value: Any) -> str:
    """A value for a table's cell; a mapping becomes "all: 3, train and test: 2"."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items())
    return str(value).replace("_", " ")


def _sentences(model: ModelRecord, card: Card) -> dict[str, str]:
    """Of what a language model's sentences are that the model learned from, by the id in the table, with its name."""
    read = model.knowledge or {}
    classes = {info.id: info.name for info in card.classes} if "descriptions" in read else {}
    return classes | ({OF_NO_CLASS: "reports"} if "paraphrases" in read else {})


def _knowledge(table: Path, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per class: how many descriptions were made, the accepted ones, and the rejected ones with their reasons; of all,
    what waits for a person and what a person has decided."""
    columns = ["class", "aspect", "text", "accepted", "reason", "provider"]
    frame = read_frame(table, columns, "describe").sort_values(columns[:3], kind="stable")
    people = ["review", "reviewed"]
    frame = frame.reindex(columns=[*columns, *people])  # those of paraphrases alone have none
    frame[people] = frame[people].astype("object").where(frame[people].notna(), None)
    frame["why"] = [told(str(reason)) if pd.notna(reason) else "" for reason in frame["reason"]]
    shown = ["aspect", "text", "reason", "why", *people]
    groups = []
    for class_id, name in names.items():
        rows = frame[frame["class"] == class_id]
        accepted = rows["accepted"].astype(bool)
        groups.append(
            {
                "name": name,
                "made": len(rows),
                "by_hand": bool((rows["provider"] == "reviewed").any()),
                "accepted": rows[accepted][shown].to_dict("records"),
                "rejected": rows[~accepted][shown].to_dict("records"),
                "decided": int(rows["reviewed"].notna().sum()),
                "waiting": int(rows["review"].notna().sum()),
            }
        )
    return groups


def _candidate(sources: Sources, shown: MeasuredCandidate) -> dict[str, Any]:
    """What only the shown candidate gets: plots, curves, per-class and per-slice metrics. Absent files are left out."""
    folder = sources.evaluations / shown.name / "plots"
    plots = [
        {"title": title, "source": data_uri((folder / f"{name}.png").read_bytes(), "image/png")}
        for name, title in PLOTS.items()
        if (folder / f"{name}.png").is_file()
    ]
    metrics = sources.metrics / f"{shown.name}.json"
    measured = Metrics.read(metrics) if metrics.is_file() else None
    curves = sources.models / shown.name / "curves.csv"
    return {
        "plots": plots,
        "charts": curve_charts(_table(curves)) if curves.is_file() else [],
        "per_class": {c: {"n": of.n, **of.estimates} for c, of in measured.per_class.items()} if measured else {},
        "slices": _slices(measured.slices) if measured else [],
        "not_sliced": measured.not_sliced if measured else {},
        "score": _score(measured.score) if measured and measured.score else None,
        "calibration": measured.calibration if measured else None,
        "novel": _novel(measured) if measured else [],
        "not_novel": measured.not_novel if measured else None,
        "covered": _covered(measured.calibration.prediction_sets) if measured and measured.calibration else [],
    }


def _novel(measured: Metrics) -> list[tuple[str, Estimate]]:
    """Balanced accuracy on the test images of the card's classes and of its novel ones, and the harmonic mean."""
    novel = measured.novel
    if novel is None:
        return []
    told = (measured.test["balanced_accuracy"], novel.balanced_accuracy, novel.harmonic_mean)
    return list(zip(("base classes", "novel classes", "harmonic mean"), told, strict=True))


def _covered(sets: PredictionSets) -> list[tuple[str, Covered]]:
    """How often the sets hold the true class: of all test images, each class and each slice."""
    test = sets.test
    return [] if test is None else [("all", test.overall), *test.per_class.items(), *test.slices.items()]


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except ValueError:  # pandas' errors on what is no table, and on what is no text
        raise InputCorrupt(f"{path} is not a table. Delete its folder and run the tune stage again.") from None


def _slices(slices: dict[str, SliceMetrics]) -> list[dict[str, Any]]:
    rows = []
    for key, part in slices.items():
        column, _, value = key.partition("=")
        facts = {"n": part.n, "patients": part.patients, "small": part.small, **part.estimates}
        rows.append({"column": column.replace("_", " "), "value": value, **facts})
    return rows


def _score(score: ScoreMetrics) -> dict[str, Any]:
    """The estimates of a score: of all images, then of the slices."""
    rows = [{"column": "all", "value": "", "n": score.n, "small": score.small, **score.estimates}]
    for key, part in score.slices.items():
        column, _, value = key.partition("=")
        facts = {"n": part.n, "small": part.small, **part.estimates}
        rows.append({"column": column.replace("_", " "), "value": value, **facts})
    return {"name": score.name, "missing": score.missing, "rows": rows}


def _looks(sources: Sources, card: Card) -> dict[str, Any] | None:
    """What the stage explain drew: figures, and tables with their cells as text. None without its folder."""
    if sources.pictures is None:
        return None
    index = read_json(sources.pictures / "index.json")
    names = {info.id: info.name for info in card.classes}
    items = []
    for item in index["items"]:
        file = sources.pictures / item["file"]
        if not file.is_file():
            raise InputMissing(f"{file} does not exist; run the explain stage again (dvc repro).")
        if item["kind"] == "table":
            frame = pd.read_csv(file, keep_default_na=False, dtype=str).replace({"class": names})
            items.append({**item, "columns": [str(name) for name in frame], "rows": frame.to_numpy().tolist()})
        else:
            items.append({"images": True, **item, "source": data_uri(file.read_bytes(), "image/png")})
    return {"items": items, "left_out": index["left_out"]}
