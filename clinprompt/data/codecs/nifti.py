"""NIfTI-1 and -2 volumes, plain or compressed, by nibabel: three axes, turned to slices, rows, columns."""

import io
import zlib
from typing import Any

import numpy as np

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, DecodedImage
from clinprompt.data.codecs.volume_axes import turned

_GZIP = b"\x1f\x8b"
_HEADER = 540  # bytes, of NIfTI-2; NIfTI-1 has 348
_FAR = 16  # bytes of a voxel, at most
_SLACK = 1 << 20  # bytes of extensions in front of the voxels
_TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")  # where a scanner or tool may write who was scanned


def _plain(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes of what a file holds, decompressed where it is compressed."""
    if not data.startswith(_GZIP):
        return data[:limit]
    try:
        return zlib.decompressobj(wbits=31).decompress(data, limit)
    except zlib.error as error:
        raise ValueError(f"the compressed file is broken ({error})") from None


def _header(data: bytes) -> Any:
    # Imported here: models of pictures are served where nibabel need not be.
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    head = _plain(data, _HEADER)
    kind = Nifti2Header if head[4:8] == b"n+2\0" else Nifti1Header
    if kind is Nifti1Header and head[344:348] != b"n+1\0":
        raise ValueError("the file holds no NIfTI volume" if head else "the file is truncated")
    try:
        header = kind.from_fileobj(io.BytesIO(head), check=False)
        header.get_data_dtype()
        _shape(header)
    except HeaderDataError as error:
        raise ValueError(f"broken NIfTI header ({error})") from None
    return header


def _shape(header: Any) -> tuple[int, int, int]:
    """The sides of the volume as stored; a fourth axis of one entry is none."""
    sides = [int(side) for side in header.get_data_shape()]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) != 3:
        raise ValueError(f"the volume has {len(sides)} axes ({' x '.join(map(str, sides))}); three are read")
    first, second, third = sides
    if min(sides) < 1:
        raise ValueError(f"the volume has no voxels ({first} x {second} x {third})")
    return first, second, third


def _probe(data: bytes) -> tuple[int, int, str, int]:
    """As stored: the first axis is taken for the width."""
    header = _header(data)
    width, height, depth = _shape(header)
    return width, height, str(header.get_data_dtype()), depth


def _read(data: bytes) -> DecodedImage:
    """The voxels [slices, rows, columns, 1], from inferior, posterior and left on, with their spacing.

    Where the header has no orientation (both its codes are 0), the axes are taken for right, anterior, superior, as
    NIfTI's method 1 has it, and the image says so.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    header = _header(data)
    voxels = int(np.prod(_shape(header), dtype=np.int64))
    size = voxels * min(int(header.get_data_dtype().itemsize), _FAR)
    raw = _plain(data, size + _SLACK)
    if len(raw) < min(size + int(header["vox_offset"]), size + _SLACK):
        raise ValueError("the file is truncated")
    kind = nibabel.Nifti2Image if raw[4:8] == b"n+2\0" else nibabel.Nifti1Image
    oriented = bool(header["qform_code"] > 0 or header["sform_code"] > 0)
    try:
        image = kind.from_bytes(raw)
        values = _values(image.dataobj)
        affine = image.affine if oriented else np.diag([*header.get_zooms()[:3], 1.0])
    except (HeaderDataError, ImageFileError, OSError, EOFError, np.linalg.LinAlgError) as error:
        raise ValueError(f"broken NIfTI volume ({error})") from None
    return turned(values.reshape(values.shape[:3]), np.asarray(affine, np.float64), oriented=oriented)


def _values(stored: Any) -> np.ndarray:
    """The voxels, scaled as the header says, in no wider a type than that needs: nibabel's own is float64."""
    values = np.asanyarray(stored.get_unscaled())
    if values.dtype.kind not in "uif":
        raise ValueError(f"voxels of type {values.dtype} are not read")
    if (stored.slope, stored.inter) == (1, 0):
        return values
    return np.asarray(stored.get_scaled(np.float32))


def text_fields(data: bytes) -> list[str]:
    """The header's fields that hold free text, and "extension" for what follows it: names alone, never what they say.

    Raises:
        ValueError: it is no NIfTI file.
    """
    header = _header(data)
    named = [name for name in _TEXT_FIELDS if name in header and bytes(header[name].tobytes()).strip(b"\0 ")]
    size = int(header["sizeof_hdr"])
    flag = _plain(data, size + 1)[size : size + 1]
    return [*named, *(["extension"] if flag not in (b"", b"\0") else [])]


CODEC = Codec(formats.NIFTI, _probe, _read)
