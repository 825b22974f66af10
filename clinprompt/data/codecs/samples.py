"""From the bytes of a deep TIFF's rows to numbers: byte order, and the two predictors of the TIFF standard."""

from dataclasses import dataclass

import numpy as np

from clinprompt.data.codecs.tiff_page import Page

_HORIZONTAL, _FLOATING_POINT = 2, 3
_TYPES = ("uint16", "uint32", "uint64", "int16", "int32", "int64", "float16", "float32", "float64")


@dataclass(frozen=True)
class Samples:
    """How the values of a page lie in its rows.

    Attributes:
        dtype: of the values. order: of their bytes, "<" or ">".
        channels: values of a pixel that lie together.
        height, width: of the image; piece_width: of a strip or tile, which end in a filling at the right side.
        predictor: TIFF's number of what was done before compressing.
    """

    dtype: np.dtype
    order: str
    channels: int
    height: int
    width: int
    piece_width: int
    across: int
    predictor: int

    @classmethod
    def of(cls, page: Page) -> "Samples":
        """What a page says of its samples.

        Raises:
            ValueError: they are packed, of another type, or hidden by an unknown predictor.
        """
        if page.dtype not in _TYPES:
            packed = "packed, " if page.bits not in (16, 32, 64) else f"of the type {page.dtype}, "
            raise ValueError(f"a TIFF of {page.describe()}, {packed}which is not read; save it with 16 bits")
        if page.predictor not in (1, _HORIZONTAL, _FLOATING_POINT) or (
            page.predictor == _FLOATING_POINT and page.sample_format != 3
        ):
            raise ValueError(f"a TIFF of {page.describe()} with the predictor {page.predictor}, which is not read")
        channels = page.channels if page.planes == 1 else 1
        return cls(
            np.dtype(page.dtype),
            page.directory.order,
            channels,
            page.height,
            page.width,
            page.piece_width,
            page.across,
            page.predictor,
        )

    @property
    def piece_row_bytes(self) -> int:
        """Bytes of a row of one strip or tile."""
        return self.piece_width * self.channels * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the image, with the last tile's filling."""
        return self.across * self.piece_row_bytes

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """The values [H, W, channels] in bytes [H, row_bytes]."""
        pieces = rows.reshape(self.height, self.across, self.piece_row_bytes)
        if self.predictor == _FLOATING_POINT:
            values = self._floats(pieces)
        else:
            values = pieces.view(np.dtype(f"{self.order}{self.dtype.kind}{self.dtype.itemsize}")).astype(self.dtype)
            values = values.reshape(*pieces.shape[:2], self.piece_width, self.channels)
            if self.predictor == _HORIZONTAL:
                whole = values.view(f"u{self.dtype.itemsize}")
                values = whole.cumsum(axis=2, dtype=whole.dtype).view(self.dtype)
        return values.reshape(self.height, self.across * self.piece_width, self.channels)[:, : self.width]

    def _floats(self, pieces: np.ndarray) -> np.ndarray:
        """Undo predictor 3: differences of bytes, the values' first bytes first, then their second ones, and so on."""
        size = self.dtype.itemsize
        differences = pieces.reshape(*pieces.shape[:2], -1, self.channels)
        planes = differences.cumsum(axis=2, dtype=np.uint8).reshape(*pieces.shape[:2], size, -1)
        big_endian = np.ascontiguousarray(planes.swapaxes(2, 3)).view(self.dtype.newbyteorder(">"))
        return big_endian.astype(self.dtype).reshape(*pieces.shape[:2], self.piece_width, self.channels)
