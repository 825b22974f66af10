"""Checks of what a text claims of its class: signs that it can't show or that are a sibling's, and denials."""

from clinprompt.knowledge.statement import Context, DescriptionCheck, Statement
from clinprompt.knowledge.terms.lexicon import Found
from clinprompt.knowledge.terms.of_card import (
    CARD,
    CORE,
    IN_NEVER,
    IN_SIGN,
    MODALITY,
    NAME,
    NEVER,
    NORMAL,
    ORGAN,
    REFERS,
    SIGN,
    SUBJECT,
    Owner,
    Reading,
    TermsOfCard,
)
from clinprompt.knowledge.words import canonical_words

# "The rest of the brain is normal": what is elsewhere says nothing of the finding.
_ELSEWHERE = set(
    canonical_words(
        "rest remaining remainder otherwise surrounding adjacent elsewhere contralateral opposite around other outside "
        "neighboring nearby further additional second associated beside beyond distant"
    )
)
# What can look normal at first need not do so.
_PERHAPS = {"can", "may", "might", "could", "initially", "sometime", "rarely"}
_GENERAL = {MODALITY, ORGAN, SUBJECT, REFERS, CARD}  # what can be said of any class
_REACH = 6  # words


def impossible(statement: Statement, context: Context) -> float | None:
    """How many signs the text claims that its class can't show; None where nothing is known of the class."""
    known = _known(statement, context)
    if known is None:
        return None
    terms, read, own = known
    normal = terms.is_normal(statement.class_id)
    count = 0
    for found in read.found:
        typical = {owner for kind, owner in found.owners if kind in (NAME, SIGN, CORE)}
        never = {owner for kind, owner in found.owners if kind in (NEVER, IN_NEVER)}
        if not read.asserted(found) or _elsewhere(read, found) or own & typical:
            continue
        count += bool(own & never) or (not normal and _says_normal(read, found))
    return float(count)


def of_siblings(statement: Statement, context: Context) -> float | None:
    """How many signs the text claims that are typical of other classes and not of its own."""
    known = _known(statement, context)
    if known is None:
        return None
    terms, read, own = known
    siblings = terms.siblings(statement.class_id) - {NORMAL}
    count = 0
    for found in read.found:
        typical = {owner for kind, owner in found.owners if kind in (SIGN, CORE)}
        # "heterogeneous enhancement" is no sibling's sign where enhancement is a sign of the class.
        general = any(kind in _GENERAL or (kind == IN_SIGN and owner in own) for kind, owner in found.owners)
        if read.asserted(found) and not general and not _elsewhere(read, found):
            count += bool(typical & siblings) and not typical & own
    return float(count)


def denials(statement: Statement, context: Context) -> float | None:
    """How many of its class's names and essential signs the text denies; "it is unlike a glioma" denies it, too."""
    known = _known(statement, context)
    if known is None:
        return None
    _, read, own = known
    own = own - {NORMAL}
    names = [found for found in read.found if any(kind == NAME and owner in own for kind, owner in found.owners)]
    of_others = [found for found in names if read.scopes.other[found.start]]
    if any(read.asserted(found) for found in names):
        of_others = []
    denied = [
        found
        for found in read.found
        if read.denied(found) and any(kind in (NAME, CORE) and owner in own for kind, owner in found.owners)
    ]
    return float(sum(not _elsewhere(read, found) for found in denied) + len(of_others))


def _known(statement: Statement, context: Context) -> tuple[TermsOfCard, Reading, frozenset[str]] | None:
    """What the checks need; None without words, or where no finding is known that the class is."""
    reading = context.read(statement)
    if reading is None or not reading[0].findings[statement.class_id]:
        return None
    return *reading, reading[0].findings[statement.class_id]


def _says_normal(read: Reading, found: Found[Owner]) -> bool:
    return (SIGN, NORMAL) in found.owners and not _PERHAPS & set(read.words[max(0, found.start - 3) : found.start])


def _elsewhere(read: Reading, found: Found[Owner]) -> bool:
    return bool(_ELSEWHERE & set(read.words[max(0, found.start - _REACH) : found.stop]))


CLAIMS: tuple[DescriptionCheck, ...] = (
    DescriptionCheck("impossible", impossible, 0, 0),
    DescriptionCheck("sign_of_sibling", of_siblings, 0, 0),
    DescriptionCheck("denied", denials, 0, 0),
)
