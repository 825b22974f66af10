"""When two names are the same: folders, labels and file names as different systems write them."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Literal

# What tables write where nothing is known; compared without regard to case.
_UNKNOWN = {"", "na", "n/a", "#n/a", "n.a.", "nan", "<na>", "nat", "none", "null", "unknown", "-", "--", "?"}
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
# DICOM's codes (PS3.3, C.7.1.1) for what tables write.
_SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "o": "O", "other": "O"}
_WHOLE = re.compile(r"^([-+]?\d+)\.0+$")


def matching_key(name: str) -> str:
    """What equal names have in common: the NFC form without case and outer blanks; an accent may be two characters."""
    return composed(composed(name).casefold()).strip()


def composed(text: str) -> str:
    """A text in the NFC form, in which equal texts are equal."""
    return unicodedata.normalize("NFC", text)


def is_known(value: str) -> bool:
    """Whether a cell or a folder's name says anything: not empty, NA, NaN, None, N/A, unknown, - and their like."""
    return value.strip().casefold() not in _UNKNOWN


def sex_code(value: str) -> str:
    """The DICOM code of a sex, F, M or O, where that is what a cell says in words; other text as it is."""
    return _SEXES.get(value.strip().casefold(), value)


def whole_number(value: str) -> str:
    """A whole number without the ".0" that it gets in a column with empty cells; other text as it is."""
    return _WHOLE.sub(r"\1", value)


def existing(root: Path, relative: str) -> str:
    """The path below `root` as it is on disk, where names may be in the other Unicode form; as given if none is."""
    if os.path.exists(root / relative):
        return relative
    found: list[str] = []
    for part in relative.split("/"):
        forms = (part, *(unicodedata.normalize(form, part) for form in _FORMS))
        found.append(next((form for form in forms if os.path.exists(root / "/".join([*found, form]))), part))
    return "/".join(found)
