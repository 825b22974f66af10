"""Palettes in segments, as DICOM files may hold them: how many colours they make, before pydicom makes them."""

from typing import TYPE_CHECKING

import numpy as np

from clinprompt.data.codecs.dicom_elements import SEGMENTED

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_COLOURS = 1 << 16
_MOST_SEGMENTS = 1 << 14
_DEEPEST = 8
_DISCRETE, _LINEAR, _INDIRECT = range(3)


def check_palette(dataset: "Dataset", name: str) -> None:
    """Refuse a palette whose segments (DICOM PS3.3, C.7.9.2) make more colours than a palette has.

    A segment of three numbers makes up to 65,535 colours, and one of four may repeat all segments.

    Raises:
        ValueError: they do.
    """
    for tag in SEGMENTED:
        data = dataset.get(tag)
        if not isinstance(data, bytes):
            continue
        try:
            width = int(dataset.RedPaletteColorLookupTableDescriptor[2]) // 8
            order = "<" if dataset.original_encoding[1] else ">"
            numbers = np.frombuffer(data, f"{order}u{width}", len(data) // width).tolist()
            _Segments(numbers, width).add(0, None, 0)
        except Exception:  # whatever a broken one leads to; its sentence is the same
            raise ValueError(
                f"{name}: its palette ({tag}) is broken or larger than any; export it anew, in RGB"
            ) from None


class _Segments:
    """Counts what the segments in a list of numbers make, and how many there are.

    Raises:
        ValueError: more than any palette has.
    """

    def __init__(self, numbers: list[int], width: int) -> None:
        self._numbers, self._width = numbers, width
        self._colours = self._segments = 0

    def add(self, at: int, most: int | None, depth: int) -> None:
        """Count `most` segments from a place on; None: all that follow."""
        while at + 1 < len(self._numbers) and most != 0:
            kind, length = self._numbers[at : at + 2]
            at += 2
            self._segments += 1
            if kind in (_DISCRETE, _LINEAR):
                self._colours += length
                at += length if kind == _DISCRETE else 1
            elif kind == _INDIRECT:
                place = self._numbers[at : at + 4 // self._width]
                at += len(place)
                first = sum(part << (8 * self._width * order) for order, part in enumerate(place))
                self.add(first, length or None, depth + 1)
            else:
                raise ValueError("no kind of segment")
            if self._colours > _MOST_COLOURS or self._segments > _MOST_SEGMENTS or depth > _DEEPEST:
                raise ValueError("too many colours")
            most = None if most is None else most - 1
