"""The image of a TIFF directory: its numbers, checked against each other and against the file before any work."""

from functools import cached_property

import numpy as np

from clinprompt.data.codecs.base import MAX_PIXELS, refuse_empty
from clinprompt.data.codecs.tags import Directory

COMPRESSIONS = {
    1: "none", 2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    22610: "JPEG XR", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
    34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
# Size, bits, compression, colours, strips and tiles, tables of fax and JPEG. All else is not shown to a decoder.
PIXEL_TAGS = (
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325),
    *(332, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
)
_MOST_CHANNELS = 64
_SMALL = 1 << 24  # pixels: a small image may lie in tiles that are much larger
_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint"}


class Page:
    """One image: rows and columns, channels, and the pieces (strips or tiles) that hold its bytes.

    Raises:
        ValueError: a number is missing, or two of them contradict each other; the sentence says what.
    """

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        number = directory.number
        self.width, self.height = number(256), number(257)
        refuse_empty(self.width, self.height)
        if number(32997, 1) != 1:
            raise ValueError("a TIFF of volumes, which are not read")
        self.channels = number(277, 1)
        if not 1 <= self.channels <= _MOST_CHANNELS:
            raise ValueError(f"a TIFF with {self.channels} channels; 1, 3 or 4 are read")
        bits = set(directory.numbers(258, (1,)))
        if len(bits) != 1:
            raise ValueError("a TIFF whose channels have different numbers of bits, which is not read")
        [self.bits] = bits
        self.deep = self.bits > 8
        self.compression, self.photometric = number(259, 1), number(262, 1)
        self.predictor, self.sample_format = number(317, 1), number(339, 1)
        self.planes = self.channels if number(284, 1) == 2 else 1
        self.tiled = 322 in directory.places
        self._pieces()

    def _pieces(self) -> None:
        number = self.directory.number
        if self.tiled:
            self.piece_width, self.piece_height = number(322), number(323)
        else:
            self.piece_width, self.piece_height = self.width, min(number(278, self.height), self.height)
        refuse_empty(self.piece_width, self.piece_height)
        self.across = -(-self.width // self.piece_width)
        self.down = -(-self.height // self.piece_height)
        padded = self.across * self.piece_width * self.down * self.piece_height
        if padded > max(_SMALL, 4 * self.width * self.height) or (self.tiled and padded > 4 * MAX_PIXELS):
            raise ValueError(f"a TIFF of huge tiles ({self.piece_width} x {self.piece_height}), which is not read")

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where the pieces begin in the file, plane after plane."""
        return self.directory.numbers(324 if self.tiled else 273)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """How many bytes the pieces have in the file."""
        tag = 325 if self.tiled else 279
        if tag not in self.directory.places and len(self.offsets) == 1:
            return (max(0, len(self.directory.data) - self.offsets[0]),)
        return self.directory.numbers(tag)

    @property
    def dtype(self) -> str:
        """The type of a deep image's values, as numpy calls it."""
        return f"{_KINDS.get(self.sample_format, 'complex')}{self.bits}"

    def pieces_of(self, plane: int) -> slice:
        """The pieces of one plane."""
        each = self.across * self.down
        return slice(plane * each, (plane + 1) * each)

    def check_data(self) -> None:
        """Refuse a page without a place in the file for each of its pieces.

        Raises:
            ValueError: pieces are missing, or lie outside the file.
        """
        needed = self.across * self.down * self.planes
        if min(len(self.offsets), len(self.lengths)) < needed:
            raise ValueError(f"broken TIFF ({len(self.offsets)} strips or tiles of the {needed} that its size needs)")
        ends = np.asarray(self.offsets[:needed], np.float64) + np.asarray(self.lengths[:needed], np.float64)
        if ends.max() > len(self.directory.data) + 1:
            raise ValueError("the image is truncated: a strip or tile of the TIFF lies behind the file's end")

    def describe(self) -> str:
        """Channels and bits, for a sentence."""
        plural = "s" if self.channels > 1 else ""
        return f"{self.channels} channel{plural} of {self.bits} bits"
