"""A report's frame: the sentence of a report with a placeholder for each fact, so that it tells of nobody."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clinprompt.data.card import Card, Measure

PLACEHOLDER = re.compile(r"\{(\w+)\}")
OF_NO_CLASS = ""  # in the place of a class's id, where a table has sentences of classes and of reports
LABEL, AGE, SEX = "label", "age", "sex"


@dataclass(frozen=True)
class Slot:
    """A place for a fact.

    Attributes:
        key: what stands in braces.
        names: one of them must be the last that is said before it; none: it stands where no name waits for its value.
    """

    key: str
    names: tuple[str, ...] = ()

    @property
    def placeholder(self) -> str:
        """The key in braces."""
        return f"{{{self.key}}}"

    @property
    def named(self) -> str:
        """The placeholder behind its name."""
        return " ".join([*self.names[:1], self.placeholder])


@dataclass(frozen=True)
class Frame:
    """What reports of a card's subjects are made of: of the class, the age, the sex and each measure a slot.

    Attributes:
        modality, organ: what is shown, as the card says.
    """

    modality: str
    organ: str
    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, card: Card) -> "Frame | None":
        """The frame of a card's reports; None where it has no record."""
        if card.record is None:
            return None
        own = [Slot(LABEL), Slot(AGE, ("age", "aged")), Slot(SEX, ("sex", "gender"))]
        keys = measure_keys(card.record.measures)
        told = [Slot(key, (measure.name,)) for key, measure in zip(keys, card.record.measures, strict=True)]
        return cls(card.modality, card.organ, (*own, *told))

    @property
    def measures(self) -> tuple[Slot, ...]:
        """The slots of the measures."""
        return self.slots[3:]

    @property
    def sentence(self) -> str:
        """The frame as one sentence."""
        told = ", ".join(slot.named for slot in self.slots[1:])
        return f"{self.modality} of {self.slots[0].placeholder}: {told}."


def measure_keys(measures: Sequence[Measure]) -> list[str]:
    """The keys of the measures' placeholders: their names, and where two are alike the column too."""
    keys: list[str] = []
    for measure in measures:
        key = re.sub(r"\W+", "_", measure.name.casefold()).strip("_")
        keys.append(f"{key}_{measure.column}" if not key or key in {*keys, LABEL, AGE, SEX} else key)
    return keys


def fill(text: str, values: Mapping[str, str]) -> str:
    """A sentence with facts in place of its placeholders."""
    return PLACEHOLDER.sub(lambda found: values[found[1]], text)
