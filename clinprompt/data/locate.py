"""Where a dataset's files lie: found below the data root and linked, or generated."""

import os
from pathlib import Path

from clinprompt.contract.variables import DATA
from clinprompt.data.card import Card
from clinprompt.data.layouts import layout_of
from clinprompt.data.layouts.base import Generator
from clinprompt.errors import InputMissing
from clinprompt.files import atomic, remove
from clinprompt.schema import Section, check


def locate(card: Card, source: Path, root: str | None) -> Path:
    """Make `source` the dataset and return it.

    A real file or folder at `source` is the dataset. Otherwise `source` becomes a link to the card's path below the
    data root: the variable CLINPROMPT_DATA, or else `root`. A generated dataset is written to `source`, and written
    again when its options or its generator have changed.

    Raises:
        InputMissing: there is no data root, or no such file below it; tells how to get it.
        BadParams: the generator refuses an option.
    """
    layout = layout_of(card.reader.kind, f"the card {card.name}")
    if layout.generator is not None:
        options = check(layout.options, card.reader.options, f"the card {card.name}", "reader")
        _generate(source, layout.generator, options)
    elif source.is_symlink() or not source.exists():
        target = _target(card, source, data_root(root))
        if not (source.is_symlink() and Path(os.readlink(source)) == target):
            with atomic(source) as partial:
                partial.symlink_to(target)
    return source


def data_root(root: str | None) -> Path | None:
    """The folder that holds the datasets' files: the variable CLINPROMPT_DATA, or else `data.root` of params.yaml."""
    chosen = os.environ.get(DATA) or root
    return Path(chosen).expanduser() if chosen else None


def _target(card: Card, source: Path, root: Path | None) -> Path:
    if root is None and not Path(card.location).is_absolute():
        if source.exists():
            return Path(os.readlink(source))  # a link that the user, or an earlier run, has made
        raise InputMissing(
            f"The dataset {card.name} is not here: set data.root in params.yaml, or the variable {DATA}, "
            f"to the folder that holds {card.location}. {card.how_to_get}"
        )
    target = Path(os.path.abspath((root or Path()) / card.location))
    if not os.path.exists(target):  # False, too, for a name that no file can have
        raise InputMissing(f"The dataset {card.name} is not at {target}. {card.how_to_get}")
    return target


def _generate(folder: Path, generator: Generator, options: Section) -> None:
    stamped = (folder / generator.stamp).is_file()
    if folder.is_symlink():
        remove(folder)
    elif folder.exists() and not stamped:
        return  # the user's own files, which are never replaced
    elif stamped and generator.is_made(folder, options):
        return
    with atomic(folder) as partial:
        generator.make(partial, options)
