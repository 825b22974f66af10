"""The files of curated words, checked: `modalities.yaml`, `organs.yaml`, `findings.yaml` and `plain.yaml`."""

from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from clinprompt.data.terms import ClassTerms, Term
from clinprompt.schema import Name, Section, check, read_yaml

_FOLDER = Path(__file__).parent
_FILES = {
    "modalities": "modalities.yaml",
    "organs": "organs.yaml",
    "findings": "findings.yaml",
    "plain": "plain.yaml",
}


Terms = list[Term]


class ModalityTerms(Section):
    """What a card may call a modality, whether its pictures are grey, and words that fit it."""

    names: Terms = Field(min_length=1)
    grey: bool
    words: Terms = Field(min_length=1)


class OrganTerms(Section):
    """What a card may call an organ, words that fit it, and organs whose words fit, too."""

    names: Terms = Field(min_length=1)
    near: list[Name] = []
    words: Terms = Field(min_length=1)


class FindingTerms(ClassTerms):
    """What a class may be, in some organs or in any."""

    organs: list[Name] = []
    names: Terms = Field(min_length=1)


class PlainTerms(Section):
    """Words that belong to no modality, organ or finding."""

    objects: Terms
    colours: Terms
    similes: Terms
    subject: Terms
    refers: Terms


class Vocabulary(Section):
    """All curated words, by the names of modalities, organs and findings."""

    modalities: dict[Name, ModalityTerms]
    organs: dict[Name, OrganTerms]
    findings: dict[Name, FindingTerms]
    plain: PlainTerms

    @model_validator(mode="after")
    def _organs_are_known(self) -> "Vocabulary":
        named = [(key, organ) for key, finding in self.findings.items() for organ in finding.organs]
        named += [(key, organ) for key, terms in self.organs.items() for organ in terms.near]
        for key, organ in named:
            if organ not in self.organs:
                raise ValueError(f"{key}: {organ!r} is no organ of organs.yaml")
        return self


@cache
def vocabulary() -> Vocabulary:
    """The words of this installation.

    Raises:
        BadParams: a file has been edited and is not as its schema says.
    """
    content = {key: read_yaml(_FOLDER / name) for key, name in _FILES.items()}
    return check(Vocabulary, content, str(_FOLDER))


def has_organ(finding: str) -> bool:
    """Whether a finding of the vocabulary is one of certain organs; "normal", and the classes of cards, are not."""
    known = vocabulary().findings.get(finding)
    return known is not None and bool(known.organs)
