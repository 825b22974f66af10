"""Which files are images: by their suffix, and where a name has none by their first bytes. Standard library only."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePath

_SIGNATURE = 352  # bytes, at least as many as the longest signature has
_GZIP = b"\x1f\x8b"
_GZIPPED = ".gz"


@dataclass(frozen=True)
class Format:
    """An image format.

    Attributes:
        name: as messages call it.
        suffixes: of its files, in lower case; the first is the customary one.
        signature: matches what its files begin with.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes]


PNG = Format("PNG", (".png",), re.compile(rb"\x89PNG\r\n\x1a\n"))
JPEG = Format("JPEG", (".jpg", ".jpeg", ".jfif", ".jpe"), re.compile(rb"\xff\xd8\xff"))
TIFF = Format("TIFF", (".tif", ".tiff"), re.compile(rb"II[*+]\0|MM\0[*+]"))
# "BM" alone begins many a text: the size of the header that follows is one of seven.
BMP = Format("BMP", (".bmp",), re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL))
WEBP = Format("WebP", (".webp",), re.compile(rb"RIFF.{4}WEBP", re.DOTALL))
GIF = Format("GIF", (".gif",), re.compile(rb"GIF8[79]a"))
# A compressed file tells what it holds only when it is opened: its suffix or the codec does.
NIFTI = Format(
    "NIfTI", (".nii.gz", ".nii"), re.compile(rb".{344}n\+1\0|(?:\x1c\x02\0\0|\0\0\x02\x1c)n\+2\0|\x1f\x8b", re.DOTALL)
)

FORMATS = (PNG, JPEG, TIFF, BMP, WEBP, GIF, NIFTI)
# A suffix -> the customary one; compressed and plain volumes keep theirs.
SUFFIXES = {suffix: kind.suffixes[0] for kind in FORMATS for suffix in kind.suffixes} | {".nii": ".nii"}


def format_of(data: bytes) -> Format | None:
    """The format that a file's first bytes tell; None for none of `FORMATS`."""
    return next((kind for kind in FORMATS if kind.signature.match(data)), None)


def suffix_of(path: str | PurePath) -> str:
    """The suffix of a file's name in lower case; "" where there is none, as in `IM000123` or `1.2.840.113619.2`."""
    stem, suffix = os.path.splitext(os.path.basename(path).lower())
    if suffix == _GZIPPED:
        suffix = os.path.splitext(stem)[1] + suffix
    return "" if suffix[1:].isdigit() else suffix


def image_suffix(file: str | Path) -> str | None:
    """The customary suffix of an image file, as ".jpg"; None for what is no image.

    A file is an image by its suffix; only where its name has none are its first bytes read.
    """
    suffix = suffix_of(file)
    if suffix:
        return SUFFIXES.get(suffix)
    head = _head(file)
    kind = None if head.startswith(_GZIP) else format_of(head)  # an archive of whatever is no image
    return kind.suffixes[-1] if kind is NIFTI else kind.suffixes[0] if kind else None


def _head(file: str | Path) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # opening a pipe would wait for its writer
            return b""
        with open(file, "rb") as stream:
            return stream.read(_SIGNATURE)
    except (OSError, ValueError):
        return b""
