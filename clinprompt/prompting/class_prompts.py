"""The token ids of one prompt per class, which the text tower must be able to tell apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from clinprompt.errors import BadParams

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone


def class_prompt_ids(backbone: "Backbone", prompts: Sequence[str], names: Sequence[str], where: str) -> Tensor:
    """Token ids [C, T] of the classes' prompts.

    Args:
        names: the classes' clinical names, for the message.
        where: the params that the prompts come from, for the message.

    Raises:
        BadParams: two classes have the same tokens: their names are in a script that the tokeniser doesn't know, differ
            in what it drops, or are equal as far as the tower reads.
    """
    ids = backbone.tokenize(list(prompts))
    name_of: dict[tuple[int, ...], str] = {}
    for row, name in zip(ids.tolist(), names, strict=True):
        read = _as_read(row, backbone.unknown_id)
        if read in name_of:
            raise BadParams(
                f"{where}: the text tower of {backbone.name} reads the same for the classes {name_of[read]!r} and "
                f"{name!r}; give them names in the dataset's card that differ within its {ids.shape[1]} tokens, in "
                "words and a script that it knows."
            )
        name_of[read] = name
    return ids


def _as_read(row: list[int], unknown: int | None) -> tuple[int, ...]:
    """A row without unknown tokens, however many, and without the padding at its end."""
    known = [token for token in row if token != unknown]
    while len(known) > 1 and known[-1] == known[-2]:
        known.pop()
    return tuple(known)
