"""Summary statistics of all the images of a manifest: the table that is validated in place of the pixels."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from clinprompt.data.codecs import Intensity
from clinprompt.data.dataset import Item, items, read_image
from clinprompt.data.near_duplicates.fingerprint import Fingerprints, collect, is_small
from clinprompt.errors import InputMissing
from clinprompt.params import ValidationParams
from clinprompt.progress import progress
from clinprompt.validation.image_summary import ImageSummary, summarise_image

COLUMNS = [field.name for field in fields(ImageSummary) if field.name not in ("thumbnail", "coarse")]
_TYPES = {"width": "Int64", "height": "Int64", "min": "Int64", "max": "Int64", "mean": "float64", "std": "float64"}
_NUMBERS = ("spacing_slices", "spacing_rows", "spacing_columns", "volume_view", "volume_anisotropy")
_TYPES |= {"volume_depth": "Int64", **dict.fromkeys(_NUMBERS, "float64")}
_WORTH_A_POOL = 500  # images; below, starting processes costs more than it saves
_CHUNK = 32


@dataclass(frozen=True)
class Summary:
    """Summary statistics of a dataset's images.

    Attributes:
        images: path, id and the fields of `ImageSummary` but the thumbnail; one row per row of the manifest.
        prints: the fingerprints of the distinct images without a problem.
    """

    images: pd.DataFrame
    prints: Fingerprints


def summarise(
    manifest: pd.DataFrame, images: Path, intensity: Intensity, limits: ValidationParams, workers: int | None = None
) -> Summary:
    """Summarise each distinct image file of the manifest once, in `workers` processes (default: one per core).

    Raises:
        InputMissing: the images folder lacks a file that the manifest names.
        InputCorrupt: a file's bytes are not those that the manifest lists.
    """
    distinct = manifest.drop_duplicates("id").sort_values("id")[["id", "file"]]
    missing = [file for file in distinct["file"] if not (images / file).is_file()]
    if missing:
        raise InputMissing(f"{images / missing[0]} does not exist; run the ingest stage again (dvc repro).")
    summarise_file = partial(
        _summarise_file, intensity=intensity, min_side=limits.min_side, max_pixels=limits.max_pixels
    )
    files = items(distinct, images)
    summaries = list(
        progress(
            _parallel_map(summarise_file, files, workers or _cores()),
            "validate: images",
            total=len(files),
            unit="image",
        )
    )
    return _collect(manifest, distinct["id"].tolist(), summaries)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parallel_map(summarise_file: Any, files: list[Item], workers: int) -> Iterator[ImageSummary]:
    if workers == 1 or len(files) < _WORTH_A_POOL:
        yield from map(summarise_file, files)
        return
    # Not "fork": libraries that have started threads by now may hold locks.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(summarise_file, files, chunksize=_CHUNK)


def _summarise_file(file: Item, *, intensity: Intensity, min_side: int, max_pixels: int) -> ImageSummary:
    return summarise_image(read_image(file), intensity, min_side, max_pixels)


def _collect(manifest: pd.DataFrame, ids: list[str], summaries: list[ImageSummary]) -> Summary:
    table = _table(ids, summaries)
    rows = [
        (image, int(summary.phash, 16), summary.thumbnail, is_small(summary.width, summary.height))
        for image, summary in zip(ids, summaries, strict=True)
        if summary.problem is None
        and summary.phash is not None
        and summary.thumbnail is not None
        and summary.width is not None
        and summary.height is not None
    ]
    volumes = [
        (image, summary.coarse)
        for image, summary in zip(ids, summaries, strict=True)
        if summary.problem is None and summary.coarse is not None
    ]
    images = manifest[["path", "id"]].merge(table, on="id", how="left")
    return Summary(images=images, prints=collect(rows, volumes))


def _table(ids: list[str], summaries: Iterable[ImageSummary]) -> pd.DataFrame:
    rows = [[getattr(summary, column) for column in COLUMNS] for summary in summaries]
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    for column in COLUMNS:
        table[column] = table[column].astype(_TYPES.get(column, "str"))  # type: ignore[call-overload]
    return table.assign(id=pd.Series(ids, dtype="str"))
