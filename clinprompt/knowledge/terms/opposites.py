"""`opposites.yaml`, checked: what can be said of a finding in ways that exclude each other."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from clinprompt.data.terms import Term
from clinprompt.knowledge.terms.lexicon import Lexicon
from clinprompt.schema import Section, check, read_yaml

_FILE = Path(__file__).with_name("opposites.yaml")
Terms = list[Term]


class Axis(Section):
    """Ways that exclude each other, by name; whether they can differ between parts of a finding, and sequences."""

    parts: Literal["finding", "structure"] | None = None
    sequences: bool = False
    ways: dict[str, Terms] = Field(min_length=2)


class Opposites(Section):
    """The whole file."""

    axes: dict[str, Axis]
    sequences: dict[str, Terms]
    parts: dict[str, dict[str, Terms]]


@cache
def opposites() -> Opposites:
    """The axes of this installation.

    Raises:
        BadParams: the file has been edited and is not as its schema says.
    """
    return check(Opposites, read_yaml(_FILE), str(_FILE))


@cache
def axis_lexicon(axis: str) -> Lexicon[str]:
    """The terms of an axis, each with the name of its way."""
    return _lexicon(opposites().axes[axis].ways)


@cache
def sequence_lexicon() -> Lexicon[str]:
    """The terms of sequences and phases, each with its name."""
    return _lexicon(opposites().sequences)


@cache
def part_lexicon(kind: str) -> Lexicon[str]:
    """The terms of the parts of a finding, or of structures, each with the part's name."""
    return _lexicon(opposites().parts[kind])


def _lexicon(named: dict[str, Terms]) -> Lexicon[str]:
    lexicon: Lexicon[str] = Lexicon()
    for name, terms in named.items():
        lexicon.add(terms, name)
    return lexicon
