"""Checks of what can't be on this picture: words of other modalities and organs, invented signs, other subjects."""

from clinprompt.knowledge.statement import Context, DescriptionCheck, Statement
from clinprompt.knowledge.terms.of_card import CARD, COLOUR, MODALITY, NAME, OBJECT, ORGAN, SUBJECT
from clinprompt.knowledge.terms.vocabulary import has_organ


def wrong_modality(statement: Statement, context: Context) -> float | None:
    """How many terms fit other modalities only; None where the card's modality is not known."""
    reading = context.read(statement)
    if reading is None or not reading[0].modalities:
        return None
    terms, read = reading
    foreign = 0
    for found in read.found:
        of_modality = any(kind == MODALITY for kind, _ in found.owners)
        foreign += of_modality and not terms.fits(found, statement.class_id) and not read.scopes.compared[found.start]
    return float(foreign)


def wrong_organ(statement: Statement, context: Context) -> float | None:
    """How many terms fit other organs only, or name what others alone have; None where the card's is not known."""
    reading = context.read(statement)
    if reading is None or not reading[0].organs[statement.class_id]:
        return None
    terms, read = reading
    foreign = 0
    for found in read.found:
        of_organ = any(kind == ORGAN or (kind == NAME and has_organ(owner)) for kind, owner in found.owners)
        foreign += of_organ and not terms.fits(found, statement.class_id) and not read.scopes.compared[found.start]
    return float(foreign)


def invented(statement: Statement, context: Context) -> float | None:
    """How many objects of everyday life the text sees, and how many colours in grey pictures."""
    reading = context.read(statement)
    if reading is None:
        return None
    terms, read = reading
    kinds = [{kind for kind, _ in found.owners} for found in read.found]
    coloured = terms.grey and "doppler" not in read.words
    return float(sum(CARD not in of_one and (OBJECT in of_one or (coloured and COLOUR in of_one)) for of_one in kinds))


def subject(statement: Statement, context: Context) -> float | None:
    """How many different words show that the text is about a picture of this kind: its modality, organ, finding, or
    what any finding can look like."""
    reading = context.read(statement)
    if reading is None:
        return None
    terms, read = reading
    about = {
        " ".join(read.words[found.start : found.stop])
        for found in read.found
        if terms.fits(found, statement.class_id) or any(kind == SUBJECT for kind, _ in found.owners)
    }
    return float(len(about))


FIT: tuple[DescriptionCheck, ...] = (
    DescriptionCheck("wrong_modality", wrong_modality, 0, 0),
    DescriptionCheck("wrong_organ", wrong_organ, 0, 0),
    DescriptionCheck("invented", invented, 0, 0),
)
SUBJECT_OF_TEXT = DescriptionCheck("unrelated", subject, 2, 1000)
