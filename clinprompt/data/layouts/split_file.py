"""Folders of images beside a JSON file of their splits, as CoOp and the papers after it publish them."""

import json
from pathlib import Path
from typing import Any

from clinprompt.data.card import Card
from clinprompt.data.formats import SUFFIXES
from clinprompt.data.layouts.base import (
    ImageRecord,
    Layout,
    Listing,
    check_text,
    inside,
    is_image,
    refuse_missing,
    source_of,
)
from clinprompt.data.layouts.words import SPLIT_WORDS
from clinprompt.errors import DataRejected, InputCorrupt, InputMissing
from clinprompt.schema import Section


class SplitJsonOptions(Section):
    """The JSON file, and the folder below the root that its paths start from; by default the root itself."""

    file: str
    images: str = "."


def read(root: Path, card: Card, options: SplitJsonOptions) -> Listing:
    """List the images of {"train": [[path, number, class name], ...], "val": ..., "test": ...}; `val` may be missing.

    The class is found by its name.

    Raises:
        DataRejected: an entry of another form, a file that is no image, a path that leaves the root.
        InputMissing, InputCorrupt: the file, or an image that it names, is not there; the file is not JSON.
    """
    _, file = inside(root, options.file, card.name)
    records, missing, total = [], [], 0
    for split, entries in _read(file).items():
        if split not in SPLIT_WORDS or not isinstance(entries, list):
            raise DataRejected(f"{options.file}: expected lists called train, val and test, found {split!r}.")
        for number, entry in enumerate(entries):
            where = f"{options.file} {split}[{number}]"
            path, label = _entry(entry, where)
            check_text(path, where)
            total += 1
            try:
                normal, image = _find(root, options.images, path, where)
            except InputMissing:
                missing.append((f"{split}[{number}]", path))
                continue
            if not is_image(image):
                raise DataRejected(f"{where}: {normal!r} is no image file; {', '.join(SUFFIXES)} are read.")
            records.append(ImageRecord(normal, source_of(image, where, card), label, where, split))
    refuse_missing(missing, total, options.file, root / options.images)
    return Listing(records)


LAYOUT = Layout(SplitJsonOptions, read)


def _find(root: Path, images: str, path: str, where: str) -> tuple[str, Path]:
    return inside(root, path if path.startswith("/") else f"{images}/{path}", where)


def _read(file: Path) -> dict[str, Any]:
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputMissing(f"{file} does not exist.") from None
    except (ValueError, RecursionError) as error:
        raise InputCorrupt(f"{file} is not valid JSON ({error}).") from None
    except OSError as error:
        raise InputCorrupt(f"{file} cannot be read: {error.strerror}.") from None
    if not isinstance(splits, dict):
        raise DataRejected(f"{file}: expected an object with lists called train, val and test.")
    return splits


def _entry(entry: Any, where: str) -> tuple[str, str]:
    match entry:
        case [str(path), int(), str(label)]:
            return path, label
    raise DataRejected(f"{where}: expected [path, number, class name], found {entry!r}.")
