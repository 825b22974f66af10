"""Checks of form, which need no knowledge: sentence, length, language, markup, who speaks, repetition, duplicates."""

import re

from clinprompt.knowledge.statement import Context, DescriptionCheck, Statement
from clinprompt.knowledge.words import FUNCTION_WORDS, unseen, words_of

_REFUSALS = (
    "as an ai",
    "as a language model",
    "i am an ai",
    "i am not able",
    "i can not",
    "i cannot",
    "i can t",
    "i do not have",
    "i don t have",
    "i m not able",
    "i m sorry",
    "i am sorry",
    "unable to provide",
    "consult a doctor",
    "consult your doctor",
    "medical advice",
)
_SPEAKERS = {"we", "my", "our", "me", "myself"}
# "I" is a numeral, too: "grade I".
_I = re.compile(
    r"\bi (?:am|m|can|could|do|don|did|have|ve|had|will|ll|would|d|was|see|saw|think|believe|feel|hope|know|want|need|"
    r"would|might|may|should|apologi\w+|understand|suggest|recommend)\b"
)
# A tag, a token of a chat template, a fence, a heading, emphasis, a bullet, a link, a table, braces. "T2*" is none.
_MARKUP = re.compile(
    r"</?[a-z][^>]*>|<\||\|>|```|^\s*#+\s|\*\*|__|^\s*(?:[-*•]|\d+[.)])\s|https?://|www\.|\]\(|\|.*\||[{}\[\]]|\\[nt]|&\w+;",
    re.IGNORECASE | re.MULTILINE,
)
# What speaks to a reader or a model instead of about a picture.
_ORDERS = re.compile(
    "|".join(
        (
            r"\b(?:ignor\w+|disregard\w*|forget|overrid\w+|bypass\w*)\b.{0,40}\b(?:previous|prior|above|all|any|earlier|"
            r"instruction|rule|guideline|prompt|image|check|everything)",
            r"\b(?:system|developer) (?:prompt|message|instruction)",
            r"\b(?:new|following|previous|your|these|the) instructions?\b",
            r"\byou (?:are now|must|should|shall|will|have to|need to)\b",
            r"\b(?:pretend|act as|roleplay|role play|jailbreak\w*|do anything now)\b",
            r"\b(?:always|only|never) (?:answer|respond|reply|predict|say|output|return|classify|label)\b",
            r"\b(?:answer|respond|reply) (?:with|only|yes|no)\b",
            r"\b(?:output|print|return|reveal|repeat) (?:the|your|only|all|this)\b",
            r"\b(?:label|classify|mark|score|rate|accept|approve|report) (?:this|every|all|each|any|it)\b.{0,40}"
            r"\b(?:as|with)\b",
            r"\bset (?:the )?(?:label|class|score|probability)\b",
            r"\b(?:system|assistant|user|human)\s*:",
            r"\b(?:api key|password\w*|credential\w*|sudo|rm -rf|drop table|import os)\b",
            r"\b(?:dear|hello|hi|hey|attention|listen|note to)\W+(?:\w+\W+){0,2}?(?:classifier|reader|model|assistant|"
            r"system|user|ai|network|algorithm|annotator|reviewer|doctor|colleague|radiologist)s?\b",
            r"(?:^|[,;:.!] *)(?:treat|consider|regard|count|take|call|diagnose) (?:any|every|each|all|this|these)\b"
            r".{0,40}\b(?:image|picture|scan|slide|photograph|input|sample|case|answer)s?\b.{0,60}\bas\b",
            r"\bregardless of (?:what|whatever)\b.{0,40}\b(?:show\w*|seen|depict\w*|image\w*|picture\w*|scan\w*)\b",
            r"\b(?:please|kindly) (?:answer|respond|write|reply|accept|classify|label|output|give|tell|visit|click)\b",
        )
    ),
    re.IGNORECASE,
)
_ALIKE = re.compile(r"[a-z][\u0370-\u052f]|[\u0400-\u052f][a-z]", re.IGNORECASE)  # "μm" and "αB" are none
_ABBREVIATIONS = ("e.g.", "i.e.", "approx.", "cf.", "vs.", "fig.", "dr.", "etc.", "no.", "st.")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?(?=\s|$)")
_ARTICLES = {"a", "an", "the", "of", "and", "or"}  # which end no sentence, full stop or not
# English words beyond those that a report may hold, which show the language of prose all the same.
_PROSE = FUNCTION_WORDS | set(
    words_of(
        "many several each only because through across along behind beside after before until towards toward so two "
        "three either upon during among them who whose what how if since although though then thus however does do did "
        "had will would could should must might almost even still yet against onto every show shows lie lies look "
        "looks appear appears form forms make makes contain contains fill fills cause causes common typical small large"
    )
)

# Forms that hardly another language has: with one of them, dense terms are a sentence and no list.
_VERBS = set(
    words_of(
        "shows displays reveals exhibits demonstrates presents appears contains lies forms has have lacks may can "
        "show display reveal exhibit demonstrate appear contain lie become becomes cause causes obscures surrounds "
        "suggest suggests indicate indicates arise arises invade invades extend extends displaces compresses separates "
        "consist consists comprise comprises involve involves occupy occupies covers grows replace replaces affect "
        "affects narrows thickens bulges enhances protrude protrudes"
    )
)


def first_sentence(text: str, ended: bool) -> tuple[str, bool]:
    """The first sentence of the first line, and whether it is whole.

    Args:
        ended: the model ended by itself; then a missing full stop is added instead of held against it.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"\s+", " ", line)
    for match in _SENTENCE_END.finditer(line):
        if not line[: match.end()].casefold().endswith(_ABBREVIATIONS):
            return line[: match.end()], True
    if ended and line and line == text.strip() and line[-1].isalnum():
        return f"{line}.", True
    return line, False


def has_sentence(text: str) -> bool:
    """Whether the text goes on after its first sentence or line, so that `first_sentence` needs no more of it."""
    line, newline, _ = text.partition("\n")
    sentence, whole = first_sentence(line, ended=False)
    return bool(newline) or (whole and len(sentence) < len(line.lstrip()))


def looks_whole(text: str) -> bool:
    """Whether a text that somebody wrote is not cut off: it ends like a sentence, or with a word that can end one."""
    stripped = text.strip()
    if stripped.endswith(("...", "…")):
        return False
    words = words_of(stripped)
    if not words or words[-1] in _ARTICLES:
        return False
    if _SENTENCE_END.search(stripped[-3:]):
        return True
    return (stripped[-1].isalnum() or stripped[-1] in ")]%") and words[-1] not in FUNCTION_WORDS


def whole(statement: Statement, context: Context) -> float:
    """1 for a whole sentence, 0 for one that was cut off."""
    return float(statement.complete)


def word_count(statement: Statement, context: Context) -> float:
    """The number of words."""
    return float(len(statement.words))


def english(statement: Statement, context: Context) -> float:
    """The share of English function words; 0 as soon as more than one word in twenty has letters beyond ASCII, or one
    word has Latin and Cyrillic or Greek letters, which look alike.

    A report's verb counts for three: "displays arborizing vessels, leaf-like areas and ovoid nests" has little else.
    English prose lies between 0.3 and 0.6, lists of terms below 0.2, other languages near 0.
    """
    words = statement.words
    foreign = sum(not word.isascii() for word in words)
    if not words or foreign > len(words) / 20 or (foreign and _ALIKE.search(statement.text)):
        return 0.0
    verb = 0 if _VERBS.isdisjoint(words) else 2
    return min(1.0, (sum(word in _PROSE or word in _VERBS for word in words) + verb) / len(words))


def markup(statement: Statement, context: Context) -> float:
    """How many marks of markup, code or links the text holds, and how many characters that can't be seen."""
    return float(len(_MARKUP.findall(statement.text)) + unseen(statement.text))


def orders(statement: Statement, context: Context) -> float:
    """How many phrases the text holds that tell a reader or a model what to do."""
    return float(len(_ORDERS.findall(statement.text)))


def echo(statement: Statement, context: Context) -> float:
    """The share of the text's four-word sequences that the question holds too."""
    question_ngrams, ngrams = set(_ngrams(words_of(statement.question), 4)), _ngrams(statement.words, 4)
    return sum(ngram in question_ngrams for ngram in ngrams) / len(ngrams) if ngrams else 0.0


def speaks_to_a_model(text: str) -> bool:
    """Whether a text, of whatever length, tells a reader or a model what to do."""
    return _ORDERS.search(text) is not None


def refusals(statement: Statement, context: Context) -> float:
    """How many of the phrases with which models decline the text holds, and how often its writer speaks of himself."""
    words = statement.words
    text = f" {' '.join(words)} "
    declined = sum(f" {phrase} " in text for phrase in _REFUSALS)
    return float(declined + sum(word in _SPEAKERS for word in words) + len(_I.findall(text)))


def repetition(statement: Statement, context: Context) -> float:
    """The share of repeated word pairs; 1 when a word follows itself."""
    bigrams = _ngrams(statement.words, 2)
    if any(first == second for first, second in bigrams):
        return 1.0
    return 1 - len(set(bigrams)) / len(bigrams) if bigrams else 0.0


def similarity(statement: Statement, context: Context) -> float:
    """The largest Jaccard index of the text's words with those of a text accepted before, for the same class."""
    earlier = context.accepted.get(statement.class_id)
    return 0.0 if earlier is None else earlier.nearest(statement.compared)


def _ngrams(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


FORM: tuple[DescriptionCheck, ...] = (
    DescriptionCheck("unfinished", whole, 1, 1),
    DescriptionCheck("length", word_count, 8, 50),
    DescriptionCheck("language", english, 0.2, 1),
    DescriptionCheck("markup", markup, 0, 0),
    DescriptionCheck("refusal", refusals, 0, 0),
    DescriptionCheck("order", orders, 0, 0),
    DescriptionCheck("echo", echo, 0, 0.6),
    DescriptionCheck("repetition", repetition, 0, 0.2),
)
DUPLICATE = DescriptionCheck("duplicate", similarity, 0, 0.8)
