"""Read a dataset card and check all of it, the options of its layout too."""

from pathlib import Path

from clinprompt.data.card import Card
from clinprompt.data.layouts import layout_of
from clinprompt.errors import BadParams
from clinprompt.schema import check, read_yaml


def load_card(path: Path) -> Card:
    """Read and check a dataset card.

    Raises:
        InputMissing: there is no such file.
        BadParams: it is not YAML, or a key is unknown, missing or of the wrong type; the key is named by its path.
    """
    card = check(Card, read_yaml(path), str(path))
    layout = layout_of(card.reader.kind, str(path))
    check(layout.options, card.reader.options, str(path), "reader")
    if not layout.has_columns and card.metadata.columns():
        raise BadParams(
            f"{path}: metadata: the reader {card.reader.kind!r} knows no columns; "
            "list the images in a CSV file and use the reader 'table'."
        )
    return card
