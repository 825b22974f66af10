"""Layouts: how a dataset's files tell images, labels and splits. One module per kind, named by a card's `reader.kind`.

A new kind is a module that makes a `Layout` called `LAYOUT`, and its line in `KINDS`. Only the module that a card asks
for is imported, so that what draws the demonstration data is no part of reading anyone else's.
"""

from importlib import import_module

from clinprompt.data.layouts.base import ImageRecord, Layout, Listing
from clinprompt.errors import BadParams

KINDS = {
    "folder": "clinprompt.data.layouts.folder",
    "table": "clinprompt.data.layouts.table",
    "visits": "clinprompt.data.layouts.visits",
    "medmnist": "clinprompt.data.layouts.npz",
    "phantom": "clinprompt.demo.layout",
    "phantom3d": "clinprompt.demo.volumes.layout",
    "split_json": "clinprompt.data.layouts.split_file",
}

__all__ = ["KINDS", "ImageRecord", "Layout", "Listing", "layout_of"]


def layout_of(kind: str, where: str) -> Layout:
    """The layout of a kind; `where` is the card that asks, for the message.

    Raises:
        BadParams: there is no such layout.
    """
    if kind not in KINDS:
        raise BadParams(f"{where}: reader.kind: no reader {kind!r}; there are {', '.join(KINDS)}.")
    layout: Layout = import_module(KINDS[kind]).LAYOUT
    return layout
