"""The interface of layouts: image records as a dataset tells them, before labels are mapped and bytes are read."""

import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from clinprompt.data.card import Card
from clinprompt.data.formats import DICOM, DICOM_FILE, image_suffix, suffix_of
from clinprompt.data.layouts.words import SPLIT_WORDS, Splits, listed, split_words
from clinprompt.data.names import existing
from clinprompt.data.series import is_series, pack_archive, pack_folder, pack_picture
from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing
from clinprompt.schema import Section

_NAMED = 10  # of the missing files in a message


@dataclass(frozen=True)
class ImageRecord:
    """One image as its dataset's layout tells it.

    Attributes:
        path: relative to the dataset's root, with forward slashes.
        source: the file, or a function that gives the file's bytes.
        label: as the dataset writes it.
        where: for messages: the file and row, or the path.
        split: "train", "val", "test", or None when the dataset does not tell.
        facts: patient, study, site, sex, age and the card's extra columns, as written; absent when empty.
    """

    path: str
    source: Path | Callable[[], bytes]
    label: str
    where: str
    split: str | None = None
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """All images of a dataset, and what lies among them.

    Attributes:
        skipped: how many files are no images, by suffix.
        excluded: how many images the card leaves out.
    """

    records: list[ImageRecord]
    skipped: dict[str, int] = field(default_factory=dict)
    excluded: int = 0


@dataclass(frozen=True)
class Generator:
    """What draws a synthetic dataset.

    Attributes:
        stamp: the name of the file in a drawn dataset's folder that records options and code; users' folders lack it.
        make: (folder, options): writes the dataset to a new folder.
        is_made: (folder, options): whether the folder was written with these options by the generator as it is now.
    """

    stamp: str
    make: Callable[[Path, Any], None]
    is_made: Callable[[Path, Any], bool]


@dataclass(frozen=True)
class Layout:
    """How one kind of dataset lies on disk.

    Attributes:
        options: the schema of the card's keys beside `reader.kind`.
        read: (root, card, options) -> Listing.
        has_columns: whether the card's `metadata` can name columns.
        generator: for a synthetic dataset.
    """

    options: type[Section]
    read: Callable[[Path, Card, Any], Listing]
    has_columns: bool = False
    generator: Generator | None = None


def check_splits(splits: Splits | None) -> Splits | None:
    """Field validator of `splits`: the keys are splits, and no two share a word."""
    for split in splits or {}:
        if split not in SPLIT_WORDS:
            raise ValueError(f"the keys are train, val and test, found {split!r}")
    if splits and len(split_words(splits)) < sum(len(listed(words)) for words in splits.values()):
        raise ValueError("two splits have the same word")
    return splits


def is_image(file: Path) -> bool:
    """Whether a file, or a folder that holds DICOM files alone, is taken for an image; hidden ones are none."""
    return not file.name.startswith(".") and (image_suffix(file) is not None or is_series(file))


def source_of(file: Path, where: str, card: Card) -> Path | Callable[[], bytes]:
    """What gives an image's bytes: the file, but of DICOM a function that leaves out who the patient is."""
    if file.is_dir():
        return partial(pack_folder, file, where, card.dicom)
    suffix = image_suffix(file)
    if suffix in DICOM_FILE.suffixes:
        return partial(pack_picture, file, where, card.dicom)
    return partial(pack_archive, file, where, card.dicom) if suffix in DICOM.suffixes else file


def kind_of_file(name: str) -> str:
    """As what a file that is no image is counted: its suffix in small letters, "hidden" or "without suffix"."""
    if name.startswith("."):
        return "hidden"
    return suffix_of(name) or "without suffix"


def counted(skipped: dict[str, int]) -> str:
    """Counts by suffix as words: "12 .dcm, 1 .txt"; the most first."""
    return ", ".join(f"{n} {kind}" for kind, n in sorted(skipped.items(), key=lambda item: (-item[1], item[0])))


def inside(root: Path, relative: str, where: str) -> tuple[str, Path]:
    """The normalised path of an image below `root`, and its file.

    An absolute path that leads into the root is taken as the one from there on; a name in the other Unicode form than
    on disk is taken as the one on disk.

    Raises:
        DataRejected: the path leaves the root by "..", by being absolute, or through a link; or is no regular file and
            no folder of a DICOM series.
        InputMissing, InputCorrupt: there is no such file; it cannot be reached.
    """
    normal = _from_root(root, posixpath.normpath(relative))
    if posixpath.isabs(normal) or normal.split("/")[0] == "..":
        raise DataRejected(f"{where}: the path {relative!r} leads out of the dataset's folder {root}.")
    normal = existing(root, normal)
    file = root / normal
    real = Path(os.path.realpath(file))
    if not real.is_relative_to(os.path.realpath(root)):
        raise DataRejected(f"{where}: {normal!r} is a link that leads out of the dataset's folder, to {real}.")
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        hint = " Paths are written with forward slashes." if "\\" in relative else ""
        raise InputMissing(f"{where}: the file {normal!r} does not exist below {root}.{hint}") from None
    except OSError as error:
        raise InputCorrupt(f"{where}: {normal!r} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(mode) and is_series(file):
        _stays_inside(file, root, normal, where)
    elif not stat.S_ISREG(mode):
        raise DataRejected(f"{where}: {normal!r} is not a regular file.")
    return normal, file


def _stays_inside(series: Path, root: Path, name: str, where: str) -> None:
    base = os.path.realpath(root)
    if not all(Path(os.path.realpath(file)).is_relative_to(base) for file in series.iterdir()):
        raise DataRejected(f"{where}: {name!r} holds a link that leads out of the dataset's folder.")


def refuse_missing(missing: list[tuple[str, str]], total: int, where: str, root: Path, hint: str = "") -> None:
    """Refuse a list of images some of which are not there.

    Args:
        missing: the place in the list and the path of each.
        total: how many images the list names.
        hint: a sentence on what may be wrong with the paths.

    Raises:
        InputMissing: how many are missing, and the first ten of them.
    """
    if not missing:
        return
    named = ", ".join(f"{place} {path!r}" for place, path in missing[:_NAMED])
    named += f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    slashes = " Paths are written with forward slashes." if any("\\" in path for _, path in missing) else ""
    raise InputMissing(
        f"{where}: {len(missing)} of {total} files do not exist below {root}: {named}.{slashes}{hint and ' ' + hint}"
    )


def _from_root(root: Path, path: str) -> str:
    """An absolute path as one from the root on where it leads into it; any other as it is."""
    if not posixpath.isabs(path):
        return path
    for base in (os.path.abspath(root), os.path.realpath(root)):
        if Path(path).is_relative_to(base):
            return Path(path).relative_to(base).as_posix()
    return path


def check_text(path: str, where: str) -> None:
    """Refuse file names that cannot be written to a table.

    Raises:
        DataRejected: the name is not valid UTF-8, or holds a null character.
    """
    if "\0" in path:
        raise DataRejected(f"{where}: the file name {path!r} holds a null character.")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise DataRejected(f"{where}: the file name {os.fsencode(path)!r} is not valid UTF-8; rename it.") from None


def unknown_columns(columns: list[str], present: list[str], where: str, hint: str = "") -> None:
    """Refuse a table that lacks a column which the card names; `hint` says more of what may be wrong.

    Raises:
        BadParams: names the first missing column and lists those that are there.
    """
    for column in columns:
        if column not in present:
            raise BadParams(f"{where}: there is no column {column!r}; the columns are {', '.join(present)}.{hint}")
