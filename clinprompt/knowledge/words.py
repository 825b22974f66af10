"""Words, as the checks of descriptions compare them, and English ones that name no class."""

import re
import unicodedata
from functools import lru_cache

_STEMS = "is are was were do does did has have had could would should must need might ai ca wo sha"
# With whatever stands for the apostrophe: the typewriter's, the printer's, an accent, or nothing.
_CONTRACTION = re.compile(rf"\b({'|'.join(_STEMS.split())})(?:n\W?t|\sn[^\w\s]t)\b")
_IN_FULL = {"ai": "is not", "ca": "cannot", "wo": "will not", "sha": "shall not"}


def words_of(text: str) -> list[str]:
    """Words in lower case without punctuation; "isn't" and "is not" are the same, and so are the British and the
    American spelling of "tumour"."""
    plain = text.casefold().replace("tumour", "tumor").replace("ʼ", "'")  # which would count as a letter
    return re.findall(r"\w+", _CONTRACTION.sub(_in_full, plain))


def _in_full(contraction: re.Match[str]) -> str:
    return _IN_FULL.get(contraction[1], f"{contraction[1]} not")


def unseen(text: str) -> int:
    """How many characters can't be seen, or turn or change those beside them: of no width, of direction, of variants.

    A tab and the ends of lines are none of them.
    """
    if text.isascii() and text.isprintable():
        return 0
    return sum(_is_unseen(character) for character in text)


def _is_unseen(character: str) -> bool:
    if character in "\t\r\n":
        return False
    return (
        unicodedata.category(character)[0] == "C"
        or character in "\u2028\u2029"
        or _VARIANTS.match(character) is not None
    )


_VARIANTS = re.compile(r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

# Words that English sentences hold whatever their subject.
FUNCTION_WORDS = frozenset(
    words_of(
        "a about above all also an and are around as at be been below between both but by can for from has have in "
        "inside into is it its like may more most near no not of often on or other out outside over seen some such "
        "than that the their there these they this to under usually very was when where which while with within without"
    )
)
# Names and ids that mention no class: "normal tissue" in a sentence on a tumour doesn't speak of the class "normal",
# nor "the left lobe" of the class "left".
NO_MENTIONS = FUNCTION_WORDS | frozenset(
    words_of(
        "normal healthy none negative positive benign malignant abnormal unknown unclear control sick ill disease "
        "diseased lesion finding findings case patient patients image images scan scans picture view class group type "
        "category label grade stage score level left right upper lower top bottom front back central middle inner "
        "outer anterior posterior lateral medial superior inferior proximal distal early late acute chronic new old "
        "young high low large small big little long short wide narrow thick thin deep superficial mild moderate severe "
        "minimal strong weak good bad poor fair clear dark bright light dense soft hard flat round black white grey "
        "gray red green blue brown yellow pink single double multiple many few one two three four five six seven "
        "eight nine ten first second third yes true false absent present mixed complex simple typical common rare "
        "open closed full empty active male female man woman mass spot rest background various miscellaneous"
    )
)


# British spellings, as American ones.
_SPELLINGS = (
    ("oedema", "edema"),
    ("haem", "hem"),
    ("oesoph", "esoph"),
    ("caec", "cec"),
    ("ischaem", "ischem"),
    ("leuco", "leuko"),
    ("grey", "gray"),
    ("colour", "color"),
    ("centre", "center"),
    ("fibre", "fiber"),
    ("foet", "fet"),
    ("naev", "nev"),
    ("aneurism", "aneurysm"),
    ("isation", "ization"),
    ("aluminium", "aluminum"),
)


def american(word: str) -> str:
    """A word, as `words_of` gives it, in American spelling."""
    for british, spelled in _SPELLINGS:
        word = word.replace(british, spelled)
    return word


@lru_cache(maxsize=1 << 15)  # texts share most of their words
def canonical(word: str) -> str:
    """A word, as `words_of` gives it, as terms are compared: in American spelling, without the ending of a plural."""
    word = american(word)
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def canonical_words(text: str) -> list[str]:
    """The words of a text in that form; "_" parts words, too."""
    return [canonical(word) for word in words_of(text.replace("_", " "))]
