"""The formats of volumes. Models of pictures are served without this module and what it leads to."""

from clinprompt.data import formats
from clinprompt.data.codecs import dicom, nifti
from clinprompt.data.codecs.base import Codec


def codec(kind: formats.Format) -> Codec:
    """The codec of a format, for one file."""
    return {formats.NIFTI: lambda: nifti.CODEC, formats.DICOM: dicom.codec}[kind]()
