"""Image folders: `<split>/<class>/*` or `<class>/*`; files may lie deeper, as in `<class>/<patient>/*`."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import field_validator

from clinprompt.data.card import Card
from clinprompt.data.formats import image_suffix
from clinprompt.data.layouts.base import (
    ImageRecord,
    Layout,
    Listing,
    check_splits,
    check_text,
    inside,
    split_words,
)
from clinprompt.errors import DataRejected, InputCorrupt, InputMissing
from clinprompt.schema import Section

_JUNK = ("__MACOSX",)


class FolderOptions(Section):
    """`splits`: the folder of each split, as {train: Training, test: Testing}; by default they are recognised."""

    splits: dict[str, str] | None = None

    _splits = field_validator("splits")(check_splits)


def split_folders(names: list[str], splits: dict[str, str] | None = None) -> dict[str, str]:
    """Which of a root's sub-folders are splits: folder name -> split; empty when the sub-folders are the classes.

    Without the option, the sub-folders are splits when one of them is called train or training.
    """
    split_by_word = split_words(splits)
    folder_splits = {name: split_by_word[name.casefold()] for name in names if name.casefold() in split_by_word}
    return folder_splits if splits is not None or "train" in folder_splits.values() else {}


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and archivers' leftovers."""
    return sorted(e.name for e in _entries(folder) if _is_folder(e) and not _hidden(e.name))


def read(root: Path, card: Card, options: FolderOptions) -> Listing:
    """List the images of all class folders.

    Raises:
        DataRejected: a folder that is no class of the card, an image outside the class folders, a path that leaves
            the root through a link.
        InputMissing: a split's folder of the option `splits` is not there.
    """
    if not root.is_dir():
        raise DataRejected(f"{root} is a file; the reader 'folder' expects a folder of class folders.")
    names = subfolders(root)
    splits = split_folders(names, options.splits)
    for split_name, folder in (options.splits or {}).items():
        if split_name not in splits.values():
            raise InputMissing(f"{root / folder}, the folder of the {split_name} split, does not exist.")
    stray = [name for name in names if name not in splits] if splits else []
    if stray:
        split_names = ", ".join(splits)
        raise DataRejected(
            f"{root / stray[0]}: lies beside the split folders {split_names} and is none; "
            "remove it, or name the splits' folders in the card under reader.splits."
        )
    records: list[ImageRecord] = []
    skipped = _loose_files(root, "") if splits else 0
    parents: list[tuple[str, str | None]] = [*splits.items()] or [("", None)]
    for parent, split in parents:
        skipped += _loose_files(root, parent)
        for name in subfolders(root / parent):
            class_records, class_skipped = _class_folder(root, os.path.join(parent, name), name, split, card)
            records += class_records
            skipped += class_skipped
    return Listing(records, skipped)


LAYOUT = Layout(FolderOptions, read)


def _class_folder(root: Path, folder: str, label: str, split: str | None, card: Card) -> tuple[list[ImageRecord], int]:
    if card.class_of(label) is None:
        raise DataRejected(
            f"{folder}: {label!r} is no class of the card {card.name} (its classes: {', '.join(card.class_ids)}). "
            "Write it under `aliases` of the class that it means, or remove the folder."
        )
    records = []
    skipped = 0
    for path in _walk(root, folder):
        if not _is_image(root / path):
            skipped += 1
            continue
        normal, file = inside(root, path, path)
        records.append(ImageRecord(normal, file, label, normal, split))
    return records, skipped


def _walk(root: Path, folder: str) -> Iterator[str]:
    """Paths of all files below a folder, relative to `root`; links to folders are followed when they stay inside."""
    for entry in sorted(_entries(root / folder), key=lambda e: e.name):
        path = f"{folder}/{entry.name}"
        check_text(path, folder)
        if not _is_folder(entry):
            yield path
        elif not _hidden(entry.name):
            if entry.is_symlink():
                _check_link(root, path)
            yield from _walk(root, path)


def _check_link(root: Path, path: str) -> None:
    real = Path(os.path.realpath(root / path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise DataRejected(f"{path}: is a link that leads out of the dataset's folder, to {real}.")
    if Path(os.path.realpath((root / path).parent)).is_relative_to(real):
        raise DataRejected(f"{path}: is a link to a folder that it lies in.")


def _loose_files(root: Path, parent: str) -> int:
    """How many files, none of them an image, lie beside the class folders."""
    count = 0
    for entry in _entries(root / parent):
        if _is_folder(entry):
            continue
        if _is_image(Path(entry.path)):
            path = os.path.join(parent, entry.name)
            raise DataRejected(f"{path}: this image lies beside the class folders; move it into one of them.")
        count += 1
    return count


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except PermissionError:
        raise InputCorrupt(f"{folder} cannot be read: permission denied.") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _is_image(path: Path) -> bool:
    return not _hidden(path.name) and image_suffix(path) is not None
