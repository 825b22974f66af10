"""Which words of a sentence are denied ("without a tumor") or are not claimed ("unlike glioma", "rarely ulcerates").

Cue words with a scope that ends at punctuation, at conjunctions, or after a few words.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from clinprompt.knowledge.words import canonical, words_of

_REACH = 8  # words; a list is longer
_LIST = 16


Cues = dict[str, list[tuple[str, ...]]]


def _cues(text: str) -> Cues:
    """Cues by their first words, the longest first."""
    by_first: Cues = {}
    for cue in sorted(
        (tuple(canonical(word) for word in cue.split("_")) for cue in text.split()), key=len, reverse=True
    ):
        by_first.setdefault(cue[0], []).append(cue)
    return by_first


def _words(text: str) -> set[str]:
    return {canonical(word) for word in text.split()}


# "Hardly a glioma", "can hardly be called a glioma", "hardly shows one"; but what is hardly visible is there.
_HARDLY_THAT = (
    "a an any anything_like be_a be_called be_considered be_described_as be_taken_for speak_of show suggest resemble "
    "indicate represent look_like"
)
_DENIES = _cues(
    "no none_of anything_but no_evidence_of no_sign_of no_trace_of not cannot without absence_of lack lacking free_of "
    "free_from never neither nor devoid_of negative_for rule_out exclude excluding excluded except fail_to "
    "failing_to instead_of rather_than "
    "not_true_that not_the_case_that not_correct_that untrue_that false_that incorrect_that wrong_that "
    "doubtful_that doubtful_whether unlikely_that failed_to ruled_out ruling_out "
    "not_consistent_with not_compatible_with not_in_keeping_with nothing_like nothing_that nothing_of "
    "nothing_resembling nothing_to_suggest nothing_suggestive_of far_from_a far_from_an far_from_being "
    "little_of_a little_evidence_of little_sign_of few_sign_of zero_evidence_of evidence_against "
    "argue_against argued_against arguing_against speak_against spoke_against speaking_against "
    + " ".join(f"{hardly}_{what}" for hardly in ("hardly", "scarcely", "barely") for what in _HARDLY_THAT.split())
)
# Not every meningioma is calcified, and that says nothing against calcified ones.
_DENIES_NOTHING = _cues(
    "not_only not_every not_all not_always not_necessarily not_uncommon not_infrequently no_doubt "
    "not_confined_to not_limited_to not_restricted_to"
)
_SEEN = ["seen", "present", "visible", "identified", "found", "detected", "evident", "demonstrated", "observed"]
_DENIES_BEFORE = _cues(
    "absent missing nowhere not_exist ruled_out excluded unlikely "
    + " ".join(f"{no}_{seen}" for no in ("not", "not_be", "not_been", "never", "never_been") for seen in _SEEN)
)
_NEARLY = _words("nearly almost quite entirely completely totally wholly largely")  # "is nearly absent"
_TWICE = _words("not cannot never")  # "cannot be excluded"
_UNABLE = _cues(" ".join(f"cannot_be_{seen}" for seen in _SEEN))  # "cannot" is its own auxiliary
# "No sign of a glioma is seen" is of the glioma, "the border of a glioma is not seen" of the border.
_TRACES = _words("evidence sign signs trace traces indication suggestion presence hint")
_ASIDE = _words("without instead rather lack lacking free absence except excluding")  # begin no sentence's subject
_COMPARES = _cues(
    "unlike in_contrast_to in_contrast_with contrast_with opposed_to compared_with compared_to in_comparison_with "
    "in_comparison_to different_from rather_than instead_of whereas than confused_with "
    "rarely seldom infrequently hardly_ever unlikely_to"
)
# "The mass is unlike a glioma" is of something else; "unlike the glioma, its edema is dark" is not.
_IS_OTHER = _cues("unlike different_from distinct_from dissimilar_to other_than")
_NO_SUCH = _cues("inconsistent_with incompatible_with little_in_common_with unlikely_to_be unlikely_to_represent")
_APART = _words(
    "distinguish distinguished distinguishing differentiate differentiated differentiating distinct differ differing "
    "separate separated separating set tell telling discriminate"
)
_BE = {"is", "are", "was", "were", "be", "remain"}
_SEEMS = _BE | _words("look looked appear appeared seem seemed something")
_AUXILIARIES = _BE | _words("can could will would should has have had does do did")
_ENDS_COMPARISON = {"but", "however"}
_ENDS_DENIAL = _ENDS_COMPARISON | _words(
    "although though whereas while because when where if since which that with show showing and than unlike"
)


@dataclass(frozen=True)
class Scopes:
    """For each word, as `canonical_words` gives them, whether it is denied, and whether it is no claim: only compared
    with, or said to be rare; and of what is compared, whether it is what something is said not to be."""

    denied: tuple[bool, ...]
    compared: tuple[bool, ...]
    other: tuple[bool, ...]

    def asserted(self, index: int) -> bool:
        """Whether a word is neither."""
        return not self.denied[index] and not self.compared[index]


@lru_cache(maxsize=4)
def scopes(text: str) -> Scopes:
    """The scopes of a text's cue words; kept, as several checks need those of one text."""
    return scopes_in(*clauses(text))


def scopes_in(words: list[str], begins: list[bool]) -> Scopes:
    """Those of a text that `clauses` has parted."""
    denied, compared, other = [False] * len(words), [False] * len(words), [False] * len(words)
    for i, word in enumerate(words):
        if (stop := _denies_before(words, i)) is not None:
            for j in _backward(words, begins, stop):
                denied[j] = True
        elif not _cue(words, i, _DENIES_NOTHING) and (length := _cue(words, i, _DENIES)):
            # "Does not show a mass", "no image shows a mass"; but "an image with no edema shows a mass".
            shows = begins[i] or words[i + length : i + length + 1] == ["show"]
            ends = _ENDS_DENIAL - {"show"} if shows and word not in _ASIDE else _ENDS_DENIAL
            for j in _forward(words, begins, i + length, ends, lists=True):
                denied[j] = True
        if word == "non" and i + 1 < len(words):
            denied[i + 1] = True
        if length := _is_other(words, begins, i):
            for j in _forward(words, begins, i + length, _ENDS_DENIAL | {"in", "by"}):
                compared[j] = other[j] = True
        if length := _cue(words, i, _COMPARES):
            for j in _forward(words, begins, i + length, _ENDS_COMPARISON):
                compared[j] = True
        elif word == "from" and _APART & set(words[max(0, i - 5) : i]):
            for j in _forward(words, begins, i + 1, _ENDS_COMPARISON | {"by", "because"}):
                compared[j] = True
    return Scopes(tuple(denied), tuple(compared), tuple(other))


def clauses(text: str) -> tuple[list[str], list[bool]]:
    """The words, as `canonical_words` gives them, and whether each begins a clause, by punctuation."""
    words: list[str] = []
    begins: list[bool] = []
    for clause in re.split(r"[,;:.!?](?=\s|$)|[()]|\s[-–—]\s", text.replace("_", " ")):
        of_clause = [canonical(word) for word in words_of(clause)]
        words += of_clause
        begins += [place == 0 for place in range(len(of_clause))]
    return words, begins


def _cue(words: list[str], start: int, cues: Cues) -> int:
    """How many words the longest cue that begins here has; 0 for none."""
    if (here := cues.get(words[start])) is None:
        return 0
    return next((len(cue) for cue in here if tuple(words[start : start + len(cue)]) == cue), 0)


def _denies_before(words: list[str], place: int) -> int | None:
    """Where what is denied ends, if a cue stands here that denies what is before it."""
    if _cue(words, place, _UNABLE):
        return place
    if not _cue(words, place, _DENIES_BEFORE):
        return None
    verb = place - 1 - (place > 1 and words[place - 1] in _NEARLY)
    if verb < 0 or words[verb] not in _AUXILIARIES or _TWICE & set(words[max(0, verb - 1) : place]):
        return None
    more = words[place] == "unlikely" and words[place + 1 : place + 2] in (["to"], ["that"])
    return None if more else verb


def _is_other(words: list[str], begins: list[bool], place: int) -> int:
    """How many words a cue has that says here what something is not; 0 for none. Of "the glioma" nothing is said but
    that there is one."""
    length = _cue(words, place, _NO_SUCH)
    if not length and _SEEMS & set(words[max(0, place - 2) : place]) and not any(begins[max(0, place - 1) : place + 1]):
        length = _cue(words, place, _IS_OTHER)
    return length if words[place + length : place + length + 1] != ["the"] else 0


def _forward(words: list[str], begins: list[bool], start: int, ends: set[str], lists: bool = False) -> range:
    """The words of a scope from `start` on; with `lists`, a comma in "no mass, edema or cyst" is no end."""
    stop = start
    limit = start + _REACH
    while stop < min(len(words), limit) and words[stop] not in ends:
        if begins[stop] and stop > start:
            if not (lists and _list_goes_on(words, stop)):
                break
            limit = start + _LIST
        stop += 1
    return range(start, stop)


def _backward(words: list[str], begins: list[bool], stop: int) -> range:
    """The words of a scope that ends before `stop`: what is not seen, without whose it is."""
    start = stop
    while start > max(0, stop - _REACH) and not begins[start] and words[start - 1] not in _ENDS_DENIAL - {"and"}:
        start -= 1
    for i in range(stop - 1, start, -1):
        if words[i] == "s":  # "the glioma's border"
            return range(i + 1, stop)
        if words[i] == "of" and words[i - 1] not in _TRACES:
            stop = i
    return range(start, stop)


def _list_goes_on(words: list[str], start: int) -> bool:
    """Whether a list goes on behind a comma: with "such as", or an "or" within a few words and before any verb or
    conjunction."""
    if words[start : start + 2] == ["such", "as"] or words[start] == "including":
        return True
    for i in range(start, min(len(words), start + 6)):
        if words[i] in {"or", "nor"}:
            return True
        if words[i] in _ENDS_DENIAL | _BE | {"have", "has"}:
            return False
    return False
