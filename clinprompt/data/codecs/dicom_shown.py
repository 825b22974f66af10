"""How a DICOM file wants its values shown: by a window, or by a table of its own (DICOM PS3.3, C.11.2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clinprompt.data.codecs.dicom_elements import content, items

if TYPE_CHECKING:
    from pydicom import Dataset

TABLES = "VOILUTSequence"
_DEPTHS = (8, *range(10, 17))


@dataclass(frozen=True)
class Table:
    """A VOI LUT: what is shown for each value from `first` on; values outside are shown as the first or the last.

    Attributes:
        first: the value, after rescaling, that the first entry is for.
        entries: uint16 [n].
        bits: of an entry: its highest value is white.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Uint8 of rescaled values [H, W]. What lies between two entries is shown as the lower one.

        Raises:
            ValueError: a value is not finite.
        """
        if not np.isfinite(values).all():
            raise ValueError("the image holds values that are not finite")
        places = np.clip(values, self.first, self.first + len(self.entries) - 1) - self.first
        greys = np.rint(self.entries * (255 / (2**self.bits - 1))).clip(0, 255).astype(np.uint8)
        return greys[places.astype(np.int32)]


def table_of(dataset: "Dataset", name: str) -> Table | None:
    """The first of a file's tables; None where it has none.

    Raises:
        ValueError: it is broken.
    """
    listed = items(dataset, TABLES, name)
    if not listed:
        return None
    told, data = content(listed[0], "LUTDescriptor"), content(listed[0], "LUTData")
    element: Any = listed[0].get_item("LUTDescriptor") if told else None
    if len(told) == 6:
        order = "<" if element.is_little_endian else ">"
        count, first, bits = (int(number) for number in np.frombuffer(told, f"{order}u2"))
        count = count or 1 << 16
        signed = element.VR == "SS" or (element.VR in (None, "UN") and dataset.get("PixelRepresentation") == 1)
        first -= (first >> 15 << 16) if signed else 0
        width = 2 if len(data) >= 2 * count else 1
        if bits in _DEPTHS and len(data) >= count and (width == 2 or (bits == 8 and order == "<")):
            return Table(first, np.frombuffer(data, f"{order}u{width}", count).astype(np.uint16), bits)
    raise ValueError(
        f"{name}: its table of greys ({TABLES}) is broken; leave it out of the header, or export the file anew"
    )


def table_item(table: Table) -> "Dataset":
    """A table as an item of a sequence in a file of our own."""
    from pydicom.dataset import Dataset

    item = Dataset()
    kind = "SS" if table.first < 0 else "US"
    item.add_new("LUTDescriptor", kind, [len(table.entries) % (1 << 16), table.first, table.bits])
    item.add_new("LUTData", "OW", table.entries.astype("<u2").tobytes())
    return item


def window(dataset: "Dataset") -> tuple[float, float] | None:
    """The lowest and the highest value of the header's first window (DICOM PS3.3, C.11.2.1.2)."""
    centre, width = (number(dataset, tag) for tag in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    if dataset.get("VOILUTFunction") in (None, "", "LINEAR"):
        centre, width = centre - 0.5, width - 1
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def rescale(dataset: "Dataset") -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where the header tells none.

    Raises:
        ValueError: one is not finite.
    """
    slope, intercept = (number(dataset, tag) for tag in ("RescaleSlope", "RescaleIntercept"))
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def number(dataset: "Dataset", tag: str) -> float | None:
    """A number of the header, the first of several; None where it is not there.

    Raises:
        ValueError: it is no finite number.
    """
    try:
        value: Any = dataset.get(tag)
        found = None if value in (None, "") or not np.size(value) else float(np.ravel(value)[0])
    except Exception:  # pydicom converts only now; what it says may hold the value
        raise ValueError(f"{tag} is no number") from None
    if found is not None and not np.isfinite(found):
        raise ValueError(f"{tag} is {found}")
    return found
