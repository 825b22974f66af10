"""The curated words and a card's own, as they bear on the card: what of a sentence fits it, and whom it speaks of."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from clinprompt.data.card import Card, ClassInfo
from clinprompt.data.terms import ClassTerms
from clinprompt.knowledge.scopes import Scopes, scopes
from clinprompt.knowledge.terms.lexicon import Found, Lexicon, term_words
from clinprompt.knowledge.terms.vocabulary import Vocabulary, vocabulary
from clinprompt.knowledge.words import FUNCTION_WORDS, canonical_words

# Kinds of owners of a term. CARD: the card's own words for its modality and organ, and those of its classes.
# IN_…: those whose words stand inside a finding's longer term.
MODALITY, ORGAN, IN_MODALITY, IN_ORGAN = "modality", "organ", "in_modality", "in_organ"
IN_SIGN, IN_NEVER = "in_sign", "in_never"
CARD, NAME, SIGN, CORE, NEVER = "card", "name", "sign", "core", "never"
OBJECT, COLOUR, SIMILE, SUBJECT, REFERS = "object", "colour", "simile", "subject", "refers"
NORMAL = "normal"

_ANYWHERE = {SUBJECT, SIMILE, REFERS}
_OF_FINDINGS = {NAME, SIGN, CORE, NEVER}

Owner = tuple[str, str]  # a kind, and whose term it is, "" for nobody's


@dataclass(frozen=True, eq=False)
class TermsOfCard:
    """What the vocabulary and a card say of the card's classes.

    Attributes:
        modalities: the entries that the card's modality stands for; without any, what depends on it can't be judged.
        organs: likewise, and those nearby, of each class id: those that its name or phrase names, else all the card's.
        grey: whether its pictures have no colours.
        findings: of each class id what the class is: findings of the vocabulary, and "class:<id>" for the card's words.
        own_words: of each class id the words of its name and phrase that are its alone.
        texts: of each class id the words of its name and phrase.
    """

    modalities: frozenset[str]
    organs: dict[str, frozenset[str]]
    grey: bool
    findings: dict[str, frozenset[str]]
    own_words: dict[str, frozenset[str]]
    texts: dict[str, str]
    lexicon: Lexicon[Owner]

    def is_normal(self, class_id: str) -> bool:
        """Whether the class is one without disease, as "normal cecum" is, too."""
        return NORMAL in self.findings[class_id] or bool({"normal", "healthy"} & set(self.texts[class_id].split()))

    @cached_property
    def all_findings(self) -> frozenset[str]:
        """What any of the classes is."""
        return frozenset().union(*self.findings.values())

    def siblings(self, class_id: str) -> frozenset[str]:
        """What other classes are and this one is not."""
        return self.all_findings - self.findings[class_id]

    def fits(self, found: Found[Owner], class_id: str) -> bool:
        """Whether a term can stand in a sentence on a class: one owner at least is the card's or the class's."""
        return any(
            kind in _ANYWHERE
            or (kind == CARD and owner in ("", class_id))
            or (kind in (MODALITY, IN_MODALITY) and owner in self.modalities)
            or (kind in (ORGAN, IN_ORGAN) and owner in self.organs[class_id])
            or (kind in _OF_FINDINGS and owner in self.all_findings)
            for kind, owner in found.owners
        )


def terms_of(card: Card) -> TermsOfCard:
    """The words that bear on a card."""
    words, own = vocabulary(), card.knowledge.terms
    modalities = _named(card.modality, {key: entry.names for key, entry in words.modalities.items()})
    organ_names = {key: entry.names for key, entry in words.organs.items()}
    organs = _named(card.organ, organ_names)
    findings = {info.id: _findings(info, words, organs) for info in card.named}
    for class_id in own.classes:
        findings[class_id] |= {f"class:{class_id}"}
    lexicon = _lexicon(words)
    lexicon.add([*own.modality, *own.organ], (CARD, ""))
    for class_id, of_class in own.classes.items():
        _add(lexicon, of_class, f"class:{class_id}")
    places: dict[str, frozenset[str]] = {}
    for info in card.named:
        places[info.id] = organs and (_named(f"{info.name} {info.phrase}", organ_names) or organs)
        written = canonical_words(f"{info.name} {info.phrase}")
        lexicon.add([word for word in written if word not in FUNCTION_WORDS], (CARD, info.id))
    return TermsOfCard(
        modalities=modalities,
        organs={key: of | {near for organ in of for near in words.organs[organ].near} for key, of in places.items()},
        grey=bool(modalities) and all(words.modalities[key].grey for key in modalities),
        findings=findings,
        own_words=_own_words(card),
        texts={info.id: " ".join(canonical_words(f"{info.name} {info.phrase}")) for info in card.named},
        lexicon=lexicon,
    )


@dataclass(frozen=True)
class Reading:
    """A text as the checks read it: its words, what is denied or compared, and the terms in it."""

    words: list[str]
    scopes: Scopes
    found: list[Found[Owner]]

    def asserted(self, found: Found[Owner]) -> bool:
        """Whether the text says that of its subject: the term is neither denied nor compared with."""
        return self.scopes.asserted(found.start)

    def denied(self, found: Found[Owner]) -> bool:
        """Whether the text says that its subject lacks it."""
        return self.scopes.denied[found.start] and not self.scopes.compared[found.start]


@lru_cache(maxsize=4)
def read(terms: TermsOfCard, text: str) -> Reading:
    """A text's reading; kept, as several checks need that of one text."""
    words = canonical_words(text)
    return Reading(words, scopes(text), terms.lexicon.find(words))


def _named(text: str, entries: dict[str, list[str]]) -> frozenset[str]:
    """The entries whose names stand in a text, or whose name it is; of overlapping names the longest."""
    lexicon: Lexicon[str] = Lexicon()
    for key, names in entries.items():
        lexicon.add(names, key)
    found = lexicon.find(canonical_words(text))
    return frozenset(owner for one in found for owner in one.owners)


def _findings(info: ClassInfo, words: Vocabulary, organs: Iterable[str]) -> frozenset[str]:
    """What a class is: the findings that its name names, or else its phrase; "without a tumor" names no tumor."""
    fitting = {k: f.names for k, f in words.findings.items() if not f.organs or set(f.organs) & set(organs)}
    return _named(info.name, fitting) or _named(info.phrase, fitting)


def _lexicon(words: Vocabulary) -> Lexicon[Owner]:
    lexicon: Lexicon[Owner] = Lexicon()
    places: Lexicon[Owner] = Lexicon()
    signs: Lexicon[Owner] = Lexicon()
    for modality, entry in words.modalities.items():
        lexicon.add(entry.words, (MODALITY, modality))
        places.add(entry.words, (IN_MODALITY, modality))
    for organ, organ_entry in words.organs.items():
        lexicon.add(organ_entry.words, (ORGAN, organ))
        places.add(organ_entry.words, (IN_ORGAN, organ))
    for key, finding in words.findings.items():
        signs.add([*finding.signs, *finding.core], (IN_SIGN, key))
        signs.add(finding.never, (IN_NEVER, key))
    for key, finding in words.findings.items():
        _add(lexicon, finding, key)
        for term in (*finding.names, *finding.signs, *finding.core, *finding.never):
            inner = [word.rstrip("*") for word in term_words(term)]
            # A sign counts wherever it stands in the term; a place only where no longer one has its words.
            found = places.find(inner) + [one for start in range(len(inner)) for one in signs.find(inner[start:])]
            for owner in {owner for one in found if one.stop - one.start < len(inner) for owner in one.owners}:
                lexicon.add([term], owner)
    for kind in ("objects", "colours", "similes", "subject", "refers"):
        owner_kind = {"objects": OBJECT, "colours": COLOUR, "similes": SIMILE}.get(kind, kind)
        lexicon.add(getattr(words.plain, kind), (owner_kind, ""))
    return lexicon


def _add(lexicon: Lexicon[Owner], terms: ClassTerms, owner: str) -> None:
    for kind, listed in ((NAME, terms.names), (SIGN, terms.signs), (CORE, terms.core), (NEVER, terms.never)):
        lexicon.add(listed, (kind, owner))


def _own_words(card: Card) -> dict[str, frozenset[str]]:
    """Of each class the words of its name and phrase that are in no other class's, nor the modality's or organ's."""
    of_class = {info.id: set(canonical_words(f"{info.name} {info.phrase} {info.id}")) for info in card.named}
    common = FUNCTION_WORDS | set(canonical_words(f"{card.modality} {card.organ}"))
    return {
        class_id: frozenset(
            word
            for word in words
            if word not in common
            and sum(word in others for others in of_class.values()) == 1
            and len(word) > 2
            and not word.isdigit()
        )
        for class_id, words in of_class.items()
    }
