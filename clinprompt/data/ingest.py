"""Ingest a dataset: write a manifest and content-addressed copies of its images."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pandas as pd

from clinprompt.data.card import Card
from clinprompt.data.codecs.base import check_bytes
from clinprompt.data.columns import COLUMNS, FOLD, NOVEL, OF_DICOM, SPLITS
from clinprompt.data.dicom_facts import identified, with_header_facts
from clinprompt.data.formats import SUFFIXES, image_suffix, suffix_of
from clinprompt.data.frames import with_frames
from clinprompt.data.groups import patients_or_studies
from clinprompt.data.layouts import ImageRecord, layout_of
from clinprompt.data.layouts.base import counted
from clinprompt.data.layouts.several import holds_several, labels_of
from clinprompt.data.manifest import write_manifest
from clinprompt.data.names import composed, is_known, sex_code
from clinprompt.data.near_duplicates.fingerprint import fingerprints
from clinprompt.data.near_duplicates.pairs import near_pairs
from clinprompt.data.novel import set_apart
from clinprompt.data.patient_ids import PatientKey, patient_key, public_id
from clinprompt.data.regions import copy_regions
from clinprompt.data.splits import check_splits, uncovered, with_splits
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.progress import progress
from clinprompt.schema import check

log = logging.getLogger(__name__)

_STUDIES = ("study", "series")  # columns whose ids get pseudonyms, as patients do
_CHUNK = 1 << 20
_THREADS = 8


@dataclass(frozen=True)
class NearLimits:
    """What counts as a near-duplicate: `bits` of a 64-bit perceptual hash that may differ, and the least correlation
    of the two images' details."""

    bits: int
    correlation: float


@dataclass(frozen=True)
class Ingested:
    """Counts of an ingest.

    Attributes:
        images: rows of the manifest.
        distinct: files of different bytes.
        classes, splits: rows of each.
        patients: how many are known, by themselves or by their studies; 0 where the dataset tells none.
        key_fingerprint: the fingerprint of the key that their ids are made with; None where no key was needed.
        skipped: files that are no images, by suffix.
        excluded: images that the card leaves out.
        warnings: sentences on DICOM headers that name patients, on studies that stand for patients, on images of
            unknown patients where others are known or a column should tell, and on each class without images in a split
            that the rule has made.
    """

    images: int
    distinct: int
    classes: dict[str, int]
    splits: dict[str, int]
    patients: int
    key_fingerprint: str | None
    skipped: dict[str, int]
    excluded: int
    warnings: list[str]


def ingest(card: Card, root: Path, manifest: Path, images: Path, limits: NearLimits | None = None) -> Ingested:
    """Read a dataset below `root`, copy its images to `images` and write its `manifest`.

    Corrupt and empty image files are taken in: validation names them. A split that the card's rule makes parts no
    near-duplicates; what counts as one is told by `limits` (None: only equal bytes do). It does not depend on the key
    that the patients' ids are made with.

    Raises:
        DataRejected, BadParams, InputMissing, InputCorrupt: what is wrong, with the file and row.
    """
    layout = layout_of(card.reader.kind, f"the card {card.name}")
    options = check(layout.options, card.reader.options, f"the card {card.name}", "reader")
    listing = layout.read(root, card, options)
    if not listing.records:
        raise DataRejected(
            f"{root} holds no image ({', '.join(SUFFIXES)} are read); "
            f"other files: {counted(listing.skipped) or 'none'}; images left out by the card: {listing.excluded}."
        )
    if listing.skipped:
        log.info("%s: files that are no images were skipped: %s", card.name, counted(listing.skipped))
    told = with_header_facts(listing.records, root, card.metadata.dicom)
    records = with_frames(told, root, card.dicom)
    frame = _rows(records, card)
    unknown = _unknown_patients(frame, card)
    frame["patient"] = patients_or_studies(frame)
    frame["id"] = copy_images(records, images)
    frame["file"] = _rename_by_id(frame, records, images)
    if card.regions is not None:
        copy_regions(records, frame["id"].tolist(), root / card.regions, images)
    near = _near(frame, images, card, limits)
    ids = frame[["patient", *_STUDIES]].notna().any(axis=None)
    key = patient_key() if card.patient_ids == "secret" and ids else None
    pseudonyms = _pseudonyms(frame["patient"], card, key)
    for column in _STUDIES:  # under the name that a study has where it stands for a patient
        named = [f"{column} {uid}" if isinstance(uid, str) else None for uid in frame[column]]
        frame[column] = _pseudonyms(pd.Series(named, index=frame.index, dtype=object), card, key)
    frame["patient"] = _pseudonyms(frame["patient"], card, None)  # splits are the same whatever the key
    frame = with_splits(frame, card.split, card.named_ids, near)
    if card.novel_classes:
        shared = len(frame)
        frame = set_apart(frame, card.novel_ids, images)
        log.info("%s: %d images of novel classes are not in the test split: left out.", card.name, shared - len(frame))
    check_splits(frame, card.split, near)
    warnings = [*identified(told), *unknown]
    warnings += uncovered(frame, card.split, card.class_ids, near)
    frame["patient"] = pseudonyms[frame.index]
    for warning in warnings:
        log.warning("%s: %s", card.name, warning)
    fingerprint = key.fingerprint if key else None
    columns = [*COLUMNS, *card.metadata.extra, *_dicom_columns(frame, card), *([FOLD] if card.split.folds else [])]
    write_manifest(frame[columns], manifest, key_fingerprint=fingerprint)
    labels, splits = Counter(frame["label"]), Counter(frame["split"])
    return Ingested(
        images=len(frame),
        distinct=int(frame["id"].nunique()),
        classes={c: labels[c] for c in card.named_ids},
        splits={s: splits[s] for s in (*SPLITS, *([NOVEL] if card.novel_classes else []))},
        patients=int(frame["patient"].nunique()),
        key_fingerprint=fingerprint,
        skipped=dict(sorted(listing.skipped.items())),
        excluded=listing.excluded,
        warnings=warnings,
    )


def _near(frame: pd.DataFrame, images: Path, card: Card, limits: NearLimits | None) -> pd.DataFrame | None:
    """The pairs of near-duplicates, where the card's rule makes a split."""
    if limits is None or not card.split.shares_out:
        return None
    files = {image: images / file for image, file in zip(frame["id"], frame["file"], strict=True)}
    prints = fingerprints(files, card.intensity)
    return near_pairs(prints, limits.bits, limits.correlation)


def copy_images(records: list[ImageRecord], folder: Path) -> list[str]:
    """Copy every record's bytes to `folder` under its number, and return their SHA-256 in hex.

    Raises:
        DataRejected: a file is larger than is read.
        InputCorrupt: a file's bytes cannot be read.
    """
    folder.mkdir(parents=True)
    jobs = [(record, _numbered_copy(folder, number)) for number, record in enumerate(records)]
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda job: _copy(*job), jobs)
        try:
            return list(progress(digests, "ingest", len(jobs), "image"))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest is not worth waiting for


def _pseudonyms(patients: pd.Series, card: Card, key: PatientKey | None) -> pd.Series:
    """Each row's patient under another name, made with the key or, without one, as everybody can."""
    name = key.pseudonym if key else public_id
    names = [name(card.name, patient) if isinstance(patient, str) else None for patient in patients]
    return pd.Series(names, index=patients.index, dtype=object)


def _rows(records: list[ImageRecord], card: Card) -> pd.DataFrame:
    where_listed: dict[str, str] = {}
    rows = []
    for record in records:
        if record.path in where_listed:
            raise DataRejected(
                f"{record.where}: the path {record.path!r} stands in {where_listed[record.path]} already."
            )
        where_listed[record.path] = record.where
        rows.append(_row(record, card))
    labels = {row["label"] for row in rows}
    if len(labels) < 2:
        raise DataRejected(f"All {len(rows)} images are of one class, {labels.pop()!r}; at least two are needed.")
    return pd.DataFrame(rows)


def _row(record: ImageRecord, card: Card) -> dict[str, Any]:
    label = card.class_of(record.label)
    if label is None:
        if holds_several(record.label, [one for one in labels_of(record.label) if card.class_of(one)]):
            raise DataRejected(
                f"{record.where}: {record.label!r} is several labels, and an image has one class here; leave such "
                "images out, or write a column that says yes or no to the one finding that is asked for."
            )
        raise DataRejected(
            f"{record.where}: the label {record.label!r} is no class of the card {card.name} "
            f"(its classes: {', '.join(card.named_ids)}); write it under `aliases` of the class that it means."
        )
    facts = {name: composed(value) for name, value in record.facts.items() if is_known(value)}
    return {
        "path": record.path,
        "label": label,
        "split": record.split,
        "patient": facts.get("patient"),
        "site": facts.get("site"),
        "sex": sex_code(facts["sex"]) if "sex" in facts else None,
        "age": _age(facts.get("age"), record.where),
        "modality": card.modality,
        **{column: facts.get(column) for column in OF_DICOM},
        "pixel_spacing": float(facts["pixel_spacing"]) if "pixel_spacing" in facts else None,
        **{column: facts.get(column) for column in card.metadata.extra},
    }


def _dicom_columns(frame: pd.DataFrame, card: Card) -> list[str]:
    """The columns of `OF_DICOM` that are asked for or told and, where an image is DICOM, what headers give away."""
    has_dicom = bool(frame["burned_in_annotation"].notna().any())
    asked = [*card.metadata.dicom, *(("identifying_fields", "burned_in_annotation") if has_dicom else ())]
    return [column for column in OF_DICOM if column in asked or frame[column].notna().any()]


def _unknown_patients(frame: pd.DataFrame, card: Card) -> list[str]:
    """A sentence where a study stands for the patient, and one where patients are unknown that should be told."""
    unknown = frame["patient"].isna()
    alone, by_study = int((unknown & frame["study"].isna()).sum()), int((unknown & frame["study"].notna()).sum())
    said = []
    if by_study:
        said.append(
            f"The patient of {by_study} of the {len(frame)} images is unknown, and the study stands for it: images of "
            "one study stay together, and two studies of one patient count as two patients."
        )
    if alone and (alone < len(frame) or card.metadata.tells_patients):
        said.append(f"The patient of {alone} of the {len(frame)} images is unknown; each is taken for one of its own.")
    return said


def _age(text: str | None, where: str) -> float | None:
    if text is None:
        return None
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not math.isfinite(age):
        raise DataRejected(f"{where}: the age {text!r} is not a number of years; leave it empty if it is unknown.")
    return age


def _copy(record: ImageRecord, target: Path) -> str:
    digest = hashlib.sha256()
    try:
        if isinstance(record.source, Path):
            check_bytes(record.source.stat().st_size)
        source = _open(record.source)
    except ValueError as error:
        raise DataRejected(f"{record.where}: {record.path!r}: {error}; leave it out, or save it smaller.") from None
    except OSError as error:
        raise InputCorrupt(f"{record.where}: {record.path!r} cannot be read: {error.strerror}.") from None
    with source, target.open("wb") as copy:
        for chunk in _chunks(source, record):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


def _open(source: Path | Callable[[], bytes]) -> IO[bytes]:
    return source.open("rb") if isinstance(source, Path) else BytesIO(source())


def _chunks(source: IO[bytes], record: ImageRecord) -> Iterator[bytes]:
    while True:
        try:
            chunk = source.read(_CHUNK)
        except OSError as error:  # of reading; one of writing, as a full disk, is not the file's fault
            raise InputCorrupt(f"{record.where}: {record.path!r} cannot be read: {error.strerror}.") from None
        if not chunk:
            return
        yield chunk


def _numbered_copy(folder: Path, number: int) -> Path:
    return folder / f"raw-{number}"


def _rename_by_id(frame: pd.DataFrame, records: list[ImageRecord], folder: Path) -> list[str]:
    """Move the numbered copies to `ab/<id>.<suffix>`; of the same bytes, the first path decides the suffix."""
    names: dict[str, str] = {}
    for number in frame["path"].argsort(kind="stable"):
        image_id = frame["id"].iloc[number]
        if image_id in names:
            _numbered_copy(folder, number).unlink()
            continue
        copy = _numbered_copy(folder, number)  # whose own name has no suffix, so that its bytes tell
        suffix = SUFFIXES.get(suffix_of(records[number].path)) or image_suffix(copy) or ""
        names[image_id] = f"{image_id[:2]}/{image_id}{suffix}"
        (folder / image_id[:2]).mkdir(exist_ok=True)
        copy.rename(folder / names[image_id])
    return [names[image_id] for image_id in frame["id"]]
