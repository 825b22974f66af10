"""The card of `open-towers`."""

from collections.abc import Mapping
from typing import Any


def model_card(facts: Mapping[str, Any]) -> str:
    """The text of README.md, with the recipe's numbers, its results and the digest of the projections."""
    return _CARD.format(**facts)


_CARD = """TODO {digest}
"""
