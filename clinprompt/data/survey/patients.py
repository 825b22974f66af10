"""Ids of patients in the names of folders and files."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

# Up to the first separator, or up to the last one.
_PREFIXES = ("([^_]+)_", "([^-]+)-", "(.+)_", "(.+)-")
_WORD = re.compile(r"(?:p|pt|pat|patient|case|sub|subject|study|lesion|person|id)[\s_.-]*\d.*", re.IGNORECASE)
_FEWEST = 4


@dataclass(frozen=True)
class Prefix:
    """What the files' names begin with.

    Attributes:
        pattern: the regular expression whose group is the id; it ends with | where some names have none.
        ids: how many there are.
        example: one that stands before several names.
    """

    pattern: str
    ids: int
    example: str


def are_ids(names: Collection[str]) -> bool:
    """Whether names look like ids: at least four, nearly all of one form with numbers in it, as p01, p02."""
    forms = Counter(_form(name) for name in names if re.search(r"\d", name))
    return len(names) >= _FEWEST and bool(forms) and forms.most_common(1)[0][1] >= 0.8 * len(names)


def _form(name: str) -> str:
    """A name with its numbers and short letters made alike: n001 and t14 have one form, grade 1 and stage 1 two."""
    return re.sub(r"(?<![a-z])[a-z]{1,3}(?![a-z])", "a", re.sub(r"\d+", "0", name.casefold()))


def say_patient(names: Collection[str]) -> bool:
    """Whether names not only look like ids but say whose, as patient_1 or case-02."""
    return are_ids(names) and all(_WORD.fullmatch(name) for name in names)


def prefix_of(paths: Sequence[str]) -> Prefix | None:
    """The ids that the files' names begin with, where some stand before several files; None where it is unlikely.

    Ids hold digits, there are more of them than folders, and every second name begins with one.
    """
    stems = [PurePosixPath(path).stem for path in paths]
    folders = len({PurePosixPath(path).parent for path in paths})
    for pattern in _PREFIXES:
        ids = Counter(found[1] for stem in stems if (found := re.match(pattern, stem)))
        files = ids.total()
        several = [one for one, n in ids.most_common() if n > 1]
        if (
            files >= 0.5 * len(stems)
            and len(ids) >= max(_FEWEST, 2 * folders)
            and sum(bool(re.search(r"\d", one)) for one in ids) >= 0.9 * len(ids)
            and len(several) >= 0.1 * len(ids)
            and max(ids.values()) <= 0.5 * files
        ):
            return Prefix(pattern if files == len(stems) else f"{pattern}|", len(ids), several[0])
    return None
