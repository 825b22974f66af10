"""The formats of volumes. Models of pictures are served without this module and what it leads to."""

from clinprompt.data.codecs import dicom, nifti
from clinprompt.data.codecs.base import Codec

CODECS: tuple[Codec, ...] = (nifti.CODEC, dicom.CODEC)
