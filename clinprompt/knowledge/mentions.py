"""Checks of whom a text speaks of: of its class, and of no other one as itself."""

from clinprompt.knowledge.class_names import plain_words
from clinprompt.knowledge.scopes import scopes
from clinprompt.knowledge.statement import Context, DescriptionCheck, Statement
from clinprompt.knowledge.terms.of_card import CORE, NAME, NORMAL, ORGAN, REFERS, SIGN, SUBJECT, Reading, TermsOfCard
from clinprompt.knowledge.words import canonical_words

# How a text on a class without disease speaks of it.
_OF_NORMAL = set(
    canonical_words(
        "normal healthy no without not neither nor free absent intact preserved symmetric symmetrical regular smooth "
        "clear uniform even sharp"
    )
)

_LOSS = set(canonical_words("lost loss lose losing"))


def other_classes(statement: Statement, context: Context) -> float:
    """How many other classes the text names as its subject, by their names, ids, or those of what they are.

    A name that is denied, or that the class is compared with, is none: "unlike a glioma".
    """
    scoped = scopes(statement.text)
    named = {class_id for class_id, start in class_mentions(statement, context) if scoped.asserted(start)}
    if (reading := context.read(statement)) is not None:
        terms, read = reading
        own, own_text = terms.findings[statement.class_id], f" {terms.texts[statement.class_id]} "
        for found in read.found:
            owners = {owner for kind, owner in found.owners if kind == NAME} - {NORMAL}
            words = " ".join(read.words[found.start : found.stop])
            if owners and not owners & own and read.asserted(found) and f" {words} " not in own_text:
                named |= {class_id for class_id, findings in terms.findings.items() if findings & owners}
    return float(len(named - {statement.class_id}))


def class_mentions(statement: Statement, context: Context) -> list[tuple[str, int]]:
    """Where the text names other classes of the card: their ids, and the number of the name's first word.

    Of overlapping names the longest counts: "pituitary tumour" is not a mention of a class "tumour". Nor is a name a
    mention that stands in the name or the phrase of the class itself: where that is "pituitary tumour", it is what
    "the tumour" means.
    """
    words, names = plain_words(statement.text), context.names
    mentions = []
    for name in names.possible(words):
        for start, stop in name.places(words):
            if name.class_id != statement.class_id and not names.in_own(name, statement.class_id):
                mentions.append((name.class_id, start))
            words[start:stop] = ["|"] * (stop - start)
    return mentions


def own_class(statement: Statement, context: Context) -> float | None:
    """Whether the text names or implies its class, or refers to it as "the lesion" does: 1 or 0."""
    reading = context.read(statement)
    if reading is None:
        return None
    terms, read = reading
    own = terms.findings[statement.class_id]
    count = sum(word in terms.own_words[statement.class_id] for word in read.words)
    for found in read.found:
        count += any(kind in (NAME, SIGN, CORE) and owner in own for kind, owner in found.owners)
        count += any(kind == REFERS for kind, _ in found.owners)
    if terms.is_normal(statement.class_id):
        count += sum(word in _OF_NORMAL for word in read.words)
        count += _only_anatomy(terms, read, statement.class_id)
    if not own:  # nothing is known of what implies it
        count += sum(any(kind == SUBJECT for kind, _ in found.owners) for found in read.found)
    return float(count > 0)


def _only_anatomy(terms: TermsOfCard, read: Reading, class_id: str) -> bool:
    """Whether a text is of the organ and asserts no finding: "alveoli are parted by delicate septa"."""
    owners = {owner for found in read.found if not read.denied(found) for owner in found.owners}
    siblings = terms.siblings(class_id)
    return (
        not _LOSS & set(read.words)
        and any(kind == ORGAN and owner in terms.organs[class_id] for kind, owner in owners)
        and not any(kind in (NAME, SIGN, CORE) and owner in siblings for kind, owner in owners)
    )


MENTIONS = DescriptionCheck("other_class", other_classes, 0, 0)
NAMED = DescriptionCheck("unnamed", own_class, 1, 1)
