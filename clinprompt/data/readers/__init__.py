"""Readers: one module per kind of dataset layout, found by the card's `reader.kind`.

A new kind is a module here that makes a `ReaderKind`, and its line in `KINDS`.
"""

from clinprompt.data.readers import folder, medmnist, phantom, split_json, table
from clinprompt.data.readers.record import Listing, ReaderKind, Record
from clinprompt.errors import BadParams

KINDS = {
    "folder": folder.KIND,
    "table": table.KIND,
    "medmnist": medmnist.KIND,
    "phantom": phantom.KIND,
    "split_json": split_json.KIND,
}

__all__ = ["KINDS", "Listing", "ReaderKind", "Record", "reader_kind"]


def reader_kind(kind: str, where: str) -> ReaderKind:
    """The reader of a kind; `where` is the card that asks, for the message.

    Raises:
        BadParams: there is no such reader.
    """
    if kind not in KINDS:
        raise BadParams(f"{where}: reader.kind: no reader {kind!r}; there are {', '.join(KINDS)}.")
    return KINDS[kind]
