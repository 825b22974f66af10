"""NIfTI-1 and -2 volumes, plain or compressed, by nibabel: three axes, turned to slices, rows, columns."""

import io
import zlib
from typing import Any

import numpy as np

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, DecodedImage

_GZIP = b"\x1f\x8b"
_HEADER = 540  # bytes, of NIfTI-2; NIfTI-1 has 348
_FAR = 16  # bytes of a voxel, at most
_SLACK = 1 << 20  # bytes of extensions in front of the voxels


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
    return first, second, third


def _probe(data: bytes) -> tuple[int, int, str, int]:
    """As stored: the first axis is taken for the width."""
    header = _header(data)
    width, height, depth = _shape(header)
    return width, height, str(header.get_data_dtype()), depth


def _read(data: bytes) -> DecodedImage:
    """The voxels [slices, rows, columns, 1], from inferior, posterior and left on, with their spacing."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.orientations import OrientationError
    from nibabel.spatialimages import HeaderDataError

    header = _header(data)
    voxels = int(np.prod(_shape(header), dtype=np.int64))
    size = voxels * min(int(header.get_data_dtype().itemsize), _FAR)
    raw = _plain(data, size + _SLACK)
    if len(raw) < min(size + int(header["vox_offset"]), size + _SLACK):
        raise ValueError("the file is truncated")
    kind = nibabel.Nifti2Image if raw[4:8] == b"n+2\0" else nibabel.Nifti1Image
    try:
        image = nibabel.as_closest_canonical(kind.from_bytes(raw))
        values = np.asanyarray(image.dataobj)
    except (HeaderDataError, ImageFileError, OrientationError, OSError, EOFError, np.linalg.LinAlgError) as error:
        raise ValueError(f"broken NIfTI volume ({error})") from None
    values = values.reshape(values.shape[:3])
    if values.dtype.kind not in "uif":
        raise ValueError(f"voxels of type {values.dtype} are not read")
    spacing = tuple(float(side) for side in image.header.get_zooms()[2::-1])
    if not all(np.isfinite(side) and side > 0 for side in spacing):
        raise ValueError(f"the voxels' sides are {spacing} millimetres")
    return DecodedImage(np.ascontiguousarray(values.transpose(2, 1, 0))[..., None], spacing)


CODEC = Codec(formats.NIFTI, _probe, _read)
