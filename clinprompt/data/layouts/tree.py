"""A folder's images at any depth, and what lies beside them."""

import fnmatch
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clinprompt.data.layouts.base import check_text, is_image, kind_of_file
from clinprompt.data.names import matching_key
from clinprompt.data.series import holds_pictures, is_series
from clinprompt.errors import DataRejected, InputCorrupt

_JUNK = ("__MACOSX",)


@dataclass
class Tree:
    """All that lies below a folder.

    Attributes:
        images: their paths, with forward slashes, sorted.
        skipped: how many files are no images, by suffix.
        excluded: how many images a glob has excluded.
    """

    images: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    excluded: int = 0

    def folders(self) -> list[tuple[str, ...]]:
        """The folders that hold images, each as its path's parts, sorted; folders without images are none."""
        return sorted({tuple(path.split("/")[:-1]) for path in self.images})


def scan(root: Path, exclude: Sequence[str] = (), slices: bool = False) -> Tree:
    """Look at all files below a folder; hidden folders and archivers' leftovers are passed over.

    Args:
        slices: whether each file of a DICOM series is an image; else the series' folder is one, a volume.
        exclude: globs of files and folders to leave out: one without a slash is held against each name, one with a
            slash against the whole path. A `*` stands for any characters.

    Raises:
        DataRejected: a link to a folder that leaves the root or turns in a circle; a name that no table can hold.
        InputCorrupt: a folder cannot be read.
    """
    tree = Tree()
    globs = [matching_key(glob.rstrip("/")) for glob in exclude]
    pending = [("", False)]  # folders, and whether they are excluded
    while pending:
        folder, is_out = pending.pop()
        entries = _entries(root / folder)
        if folder and not slices and is_series(root / folder) and not holds_pictures(root / folder):
            _count(tree, root, folder, False, is_out)
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            check_text(path, folder or str(root))
            is_hidden = entry.name.startswith(".") or entry.name in _JUNK
            out = is_out or _is_excluded(path, globs)
            if not _is_folder(entry):
                _count(tree, root, path, is_hidden, out)
            elif not is_hidden and not (entry.is_symlink() and out):
                if entry.is_symlink():
                    _check_link(root, path)
                pending.append((path, out))
    tree.images.sort()
    return tree


def _count(tree: Tree, root: Path, path: str, is_hidden: bool, is_out: bool) -> None:
    if is_hidden or not is_image(root / path):
        tree.skipped[kind_of_file(path.rpartition("/")[2])] += 1
    elif is_out:
        tree.excluded += 1
    else:
        tree.images.append(path)


def _is_excluded(path: str, globs: Sequence[str]) -> bool:
    whole = matching_key(path)
    name = whole.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(whole if "/" in glob else name, glob) for glob in globs)


def _check_link(root: Path, path: str) -> None:
    real = Path(os.path.realpath(root / path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise DataRejected(f"{path}: is a link that leads out of the dataset's folder, to {real}.")
    if Path(os.path.realpath((root / path).parent)).is_relative_to(real):
        raise DataRejected(f"{path}: is a link to a folder that it lies in.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputCorrupt(f"{folder} cannot be read: {error.strerror}.") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
