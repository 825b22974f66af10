"""Validate a manifest and its images, and write the verdict, accepted or rejected, with the evidence."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinprompt.data.card import Card
from clinprompt.data.columns import NOVEL, SPLITS
from clinprompt.data.manifest import write_manifest
from clinprompt.files import write_json, write_text
from clinprompt.params import ValidationParams
from clinprompt.validation import leaks
from clinprompt.validation.data_docs import render
from clinprompt.validation.duplicates import find_duplicates
from clinprompt.validation.gx import Outcome, run_suite
from clinprompt.validation.headers import BURNED_IN, IDENTIFYING, not_told
from clinprompt.validation.shown import (
    FILE_NAMES,
    dropped_images,
    flagged_images,
    images_by_id,
    names_of,
    pairs_by_id,
)
from clinprompt.validation.suite import COUNT, LEAKS, PATIENT_LEAKS, build_suite, build_table
from clinprompt.validation.summary import summarise
from clinprompt.validation.volumes import measure_columns

NOT_LOOKED_FOR = (
    "Near-duplicates are not looked for beyond rotations of about 5 degrees (and by quarters), crops and borders of "
    "about 5 % on each side, and, in images below 64 pixels, beyond what the perceptual hash tells. Of volumes, turned "
    "and mirrored copies are not looked for."
)
_ON_LEAK = (
    "The card's on_leak decides what happens with leaks: fail (now) stops here; drop_from_train leaves the image in the"
    " lesser split out (train before val, val before test) and lists it."
)
_TOO_FEW = (
    "A class of too few images gets more, is merged with another or left out of the card; validation."
    "min_images_per_class in params.yaml says how few will do."
)
_NAMED = 5  # images in a sentence
_FLAGGED = 100  # images in verdict.json: a check may fail for all of a large dataset
_NAMES_IMAGE = re.compile(r"image [0-9a-f]{12} in ")
_SENTENCES = 3  # in the message of a rejection


_PATIENTS_NOT_CHECKED = {
    "name": PATIENT_LEAKS,
    "severity": "critical",
    "passed": None,
    "observed": None,
    "message": "Not checked: the card names no patients, so a patient may be in two splits.",
}


@dataclass(frozen=True)
class Verdict:
    """The result of a validation.

    Attributes:
        accepted: the manifest's rows that remain after leaks have been dropped.
        record: verdict.json: verdict, checks, counts, dropped, flagged, leaks.
        images, pairs: images.parquet and pairs.parquet, by ids: the manifest alone has the paths.
        docs: the Data Docs page.
    """

    dataset: str
    classes: list[str]
    accepted: pd.DataFrame
    record: dict[str, Any]
    images: pd.DataFrame
    pairs: pd.DataFrame
    docs: str

    @property
    def is_accepted(self) -> bool:
        """Whether no critical check failed."""
        return bool(self.record["verdict"] == "accepted")

    @property
    def failures(self) -> list[str]:
        """The sentences of the critical checks that failed."""
        return [c["message"] for c in self.record["checks"] if c["severity"] == "critical" and c["passed"] is False]

    @property
    def warnings(self) -> list[str]:
        """The sentences of the other checks that failed."""
        return [c["message"] for c in self.record["checks"] if c["severity"] == "warning" and c["passed"] is False]


def validate(
    card: Card,
    card_file: str,
    manifest: pd.DataFrame,
    images: Path,
    limits: ValidationParams,
    *,
    workers: int | None = None,
) -> Verdict:
    """Check a manifest and its images; leaks are dropped first if the card says so.

    Args:
        card_file: the card's path, for messages. images: the folder of ingest's copies.

    Raises:
        BadParams: an expectation of the card makes no sense. InputMissing: an image's copy is not in the folder.
    """
    summary = summarise(manifest, images, card.intensity, limits, workers)
    duplicates = find_duplicates(manifest, summary, limits.near_duplicate_bits, limits.near_duplicate_correlation)
    cleaned = leaks.Cleaned(manifest, pd.DataFrame(columns=list(leaks.DROPPED)))
    if card.on_leak == "drop_from_train":
        cleaned = leaks.drop(manifest, duplicates.near)
    table = measure_columns(build_table(cleaned.manifest, summary, duplicates.near), card)
    without = int(cleaned.manifest["patient"].isna().sum())
    patients_known = without < len(cleaned.manifest)
    suite = build_suite(card, card_file, limits, table, patients_known=patients_known)
    suite_result = run_suite(table, suite)
    unknown = {str(column) for column in manifest.columns if manifest[column].isna().all()} - {IDENTIFYING}
    checks = [_check_entry(outcome, table, unknown) for outcome in suite_result.outcomes]
    flagging = [one for one in suite_result.outcomes if one.expectation.flags]
    flagged = flagged_images(((one.expectation.name, one.offenders) for one in flagging), table)
    checks = [c | {"message": c["message"] + not_told(table)} if c["name"] == BURNED_IN else c for c in checks]
    if not patients_known:
        checks.append(_PATIENTS_NOT_CHECKED)
    elif without:
        told = f" {without} of {len(cleaned.manifest)} images have no patient and were not checked."
        checks = [c | {"message": c["message"] + told} if c["name"] == PATIENT_LEAKS else c for c in checks]
    failed = any(check["severity"] == "critical" and check["passed"] is False for check in checks)
    record = {
        "format": 2,
        "dataset": card.name,
        "verdict": "rejected" if failed else "accepted",
        "checks": checks,
        "counts": _counts(cleaned.manifest, card),
        "dropped": dropped_images(cleaned.dropped, manifest, duplicates.near),
        "dropped_sentence": _dropped_sentence(cleaned.dropped),
        "flagged": flagged[:_FLAGGED],
        "flagged_images": len(flagged),
        "not_looked_for": NOT_LOOKED_FOR,
        "leaks": {"on_leak": card.on_leak, **leaks.counts(manifest, duplicates.near)},
    }
    page = render(suite_result.result, card.title, record)
    tables = images_by_id(summary.images), pairs_by_id(duplicates.pairs)
    return Verdict(card.name, card.named_ids, cleaned.manifest, record, *tables, page)


def write(verdict: Verdict, accepted: Path, classes: Path, evidence: Path) -> None:
    """Write the accepted manifest, the label set and the folder of evidence."""
    write_manifest(verdict.accepted, accepted)
    write_json(classes, {"dataset": verdict.dataset, "classes": verdict.classes})
    evidence.mkdir(parents=True, exist_ok=True)
    write_json(evidence / "verdict.json", verdict.record)
    _write_parquet(verdict.images, evidence / "images.parquet")
    _write_parquet(verdict.pairs, evidence / "pairs.parquet")
    write_text(evidence / "docs" / "index.html", verdict.docs)


def rejection(verdict: Verdict, evidence: Path) -> str:
    """Why the data was rejected, in a few sentences, and where to look."""
    first = " ".join(verdict.failures[:_SENTENCES])
    unnamed = len(verdict.failures) - _SENTENCES
    rest = f" {unnamed} more check{'s' if unnamed > 1 else ''} failed." if unnamed > 0 else ""
    if verdict.record["dropped"]:
        rest += f" {verdict.record['dropped_sentence']}"
    failed = {check["name"] for check in verdict.record["checks"] if check["passed"] is False}
    how = f" {_TOO_FEW}" if any(name.startswith(COUNT) for name in failed) else ""
    how += f" {_ON_LEAK}" if failed & set(LEAKS) else ""
    if _NAMES_IMAGE.search(first):
        how += f" `python -m clinprompt.data.lookup {verdict.dataset} DIGITS` tells an image's file."
    where = f"The evidence is in {evidence} (docs/index.html is readable)."
    return f"{verdict.dataset} is rejected. {first}{rest}{how} {where}"


def _check_entry(outcome: Outcome, table: pd.DataFrame, unknown: set[str]) -> dict[str, Any]:
    """An outcome as verdict.json has it; what holds only since its column, one of `unknown`, is empty is unchecked."""
    expectation = outcome.expectation
    column = expectation.kwargs.get("column")
    entry = {"name": expectation.name, "severity": expectation.severity}
    if outcome.passed and column in unknown:
        return entry | {"passed": None, "observed": None, "message": f"Not checked: {column} is known of no image."}
    about = f"{expectation.about[0].upper()}{expectation.about[1:]}."
    message = about if outcome.passed else _sentence(outcome, table)
    return entry | {"passed": outcome.passed, "observed": outcome.observed, "message": message}


def _dropped_sentence(dropped: pd.DataFrame) -> str:
    """How many images were dropped, by reason and from which split."""
    if dropped.empty:
        return "No image was dropped."
    sizes = Counter(zip(dropped["split"], dropped["reason"], dropped["twin_split"], strict=True))
    parts = [f"{n} from {split} ({reason}, {twin})" for (split, reason, twin), n in sorted(sizes.items())]
    count = "1 image was" if len(dropped) == 1 else f"{len(dropped)} images were"
    return f"{count} dropped: {', '.join(parts)}."


def _sentence(outcome: Outcome, table: pd.DataFrame) -> str:
    expected = f"Expected that {outcome.expectation.about}"
    if outcome.rows is None:
        return f"{expected}; found {outcome.observed}."
    column = outcome.expectation.shows or outcome.expectation.kwargs.get("column")
    by_path = table.set_index("path")
    reasons = by_path[column].to_dict() if column in by_path and column not in FILE_NAMES else {}
    names, paths = names_of(table), outcome.offenders
    named = [
        f"{names[path]} ({reasons[path]})" if pd.notna(reasons.get(path)) else str(names[path])
        for path in paths[:_NAMED]
    ]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    listed = f": {', '.join(named)}{more}" if named else ""
    return f"{expected}; not so for {outcome.observed} of {outcome.rows} images{listed}."


def _counts(manifest: pd.DataFrame, card: Card) -> dict[str, dict[str, int]]:
    sizes = manifest.groupby(["split", "label"]).size().to_dict()
    classes = dict.fromkeys(SPLITS, card.class_ids) | ({NOVEL: card.novel_ids} if card.novel_classes else {})
    return {split: {label: int(sizes.get((split, label), 0)) for label in of} for split, of in classes.items()}


def _write_parquet(frame: pd.DataFrame, path: Path) -> None:
    # pandas' own metadata names library versions, which would change the bytes.
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None), path)
