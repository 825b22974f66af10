"""Which files are images: by their suffix, and where a name has none by their first bytes. Standard library only."""

import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePath

_SIGNATURE = 352  # bytes, at least as many as the longest signature has
PREAMBLE = 132  # bytes in front of a DICOM file's elements, the mark at their end
_MARK = b"DICM"
_GZIP = b"\x1f\x8b"
_GZIPPED = ".gz"
_INDEX = "DICOMDIR"


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
# The preamble may be missing, up to "DICM" or with it. Then a file begins with its meta group, or with the dataset's
# first group: explicit, the low byte of its number first or last, or implicit.
_META, _EXPLICIT = rb"\x02\0[\0-\x16]\0(?:UL|OB|UI|SH)", rb"\x08\0[\0-\x3e]\0[A-Z]{2}.\0"
_BIG_ENDIAN, _IMPLICIT = rb"\0\x08\0[\0-\x3e][A-Z]{2}\0.", rb"\x08\0[\0-\x3e]\0[\x02-\xff]\0\0\0"
_STARTS = b"|".join((_META, _EXPLICIT, _BIG_ENDIAN, _IMPLICIT))
DICOM_FILE = Format(
    "DICOM",
    (".dcm", ".dicom", ".ima"),
    re.compile(rb".{128}DICM|(?:DICM)?(?:" + _STARTS + rb")", re.DOTALL),
)
# A compressed file tells what it holds only when it is opened: its suffix or the codec does.
NIFTI = Format(
    "NIfTI", (".nii.gz", ".nii"), re.compile(rb".{344}n\+1\0|(?:\x1c\x02\0\0|\0\0\x02\x1c)n\+2\0|\x1f\x8b", re.DOTALL)
)
DICOM = Format("zipped DICOM", (".zip",), re.compile(rb"PK\x03\x04"))

# DICOM comes first: its preamble may make a TIFF of it, too.
FORMATS = (DICOM_FILE, PNG, JPEG, TIFF, BMP, WEBP, GIF, NIFTI, DICOM)
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
    if suffix in DICOM_FILE.suffixes and not is_dicom(file):
        return None
    if suffix:
        return SUFFIXES.get(suffix) if suffix not in DICOM.suffixes or holds_dicom(file) else None
    if os.path.basename(file).upper() == _INDEX:
        return None
    head = _head(file)
    kind = None if head.startswith(_GZIP) else format_of(head)  # an archive of whatever is no image
    if kind is DICOM and not holds_dicom(file):
        return None
    return kind.suffixes[-1] if kind is NIFTI else kind.suffixes[0] if kind else None


def is_dicom(file: str | Path) -> bool:
    """Whether a file is a DICOM file by its name, if that has a suffix of those or none, and its first bytes."""
    return suffix_of(file) in ("", *DICOM_FILE.suffixes) and is_dicom_file(_head(file))


def is_dicom_file(head: bytes) -> bool:
    """Whether bytes begin as a DICOM file does."""
    return DICOM_FILE.signature.match(head) is not None


def dicom_start(head: bytes) -> int:
    """Where the first element of a DICOM file lies, by its first `PREAMBLE` bytes."""
    return PREAMBLE if head[128:PREAMBLE] == _MARK else len(_MARK) if head.startswith(_MARK) else 0


def holds_dicom(archive: str | Path) -> bool:
    """Whether a zip holds a DICOM file, by the first of its files that is no index: others are downloads, say."""
    try:
        if not stat.S_ISREG(os.stat(archive).st_mode):
            return False
        with zipfile.ZipFile(archive) as opened:
            first = next((entry for entry in opened.infolist() if is_member(entry)), None)
            if first is None:
                return False
            with opened.open(first) as stream:
                return is_dicom_file(stream.read(_SIGNATURE))
    except (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile):
        return False


def is_member(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry of a zip is a file of the series: not hidden, no folder, not the index DICOMDIR."""
    parts = entry.filename.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not entry.is_dir() and not hidden and parts[-1].upper() != _INDEX


def _head(file: str | Path) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # opening a pipe would wait for its writer
            return b""
        with open(file, "rb") as stream:
            return stream.read(_SIGNATURE)
    except (OSError, ValueError):
        return b""
