"""Checks of what can't be on this picture: words of other modalities and organs, invented signs, other subjects."""

from clinprompt.knowledge.statement import Context, DescriptionCheck, Statement
from clinprompt.knowledge.terms.of_card import (
    CARD,
    COLOUR,
    CORE,
    IN_MODALITY,
    IN_ORGAN,
    MODALITY,
    NAME,
    OBJECT,
    ORGAN,
    SIGN,
    SUBJECT,
)
from clinprompt.knowledge.terms.vocabulary import has_organ


def wrong_modality(statement: Statement, context: Context) -> float | None:
    """How many terms fit other modalities only; None where the card's modality is not known."""
    reading = context.read(statement)
    if reading is None or not reading[0].modalities:
        return None
    terms, read = reading
    foreign = 0
    for found in read.found:
        of_modality = any(kind in (MODALITY, IN_MODALITY) for kind, _ in found.owners)
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
        of_organ = any(kind in (ORGAN, IN_ORGAN) or (kind == NAME and has_organ(owner)) for kind, owner in found.owners)
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
    """How much shows that the text is about a picture of this kind: of different terms two for each of its modality,
    organ and findings, one for each that any finding can be described with."""
    reading = context.read(statement)
    if reading is None:
        return None
    terms, read = reading
    weights = {}
    for found in read.found:
        kinds = {kind for kind, _ in found.owners}
        fits = terms.fits(found, statement.class_id)
        weight = 2 if fits and kinds & {MODALITY, ORGAN, NAME, SIGN, CORE} else int(SUBJECT in kinds or CARD in kinds)
        weights[" ".join(read.words[found.start : found.stop])] = weight
    return float(sum(weights.values()))


FIT: tuple[DescriptionCheck, ...] = (
    DescriptionCheck("wrong_modality", wrong_modality, 0, 0),
    DescriptionCheck("wrong_organ", wrong_organ, 0, 0),
    DescriptionCheck("invented", invented, 0, 0),
)
SUBJECT_OF_TEXT = DescriptionCheck("unrelated", subject, 2, 1000)
