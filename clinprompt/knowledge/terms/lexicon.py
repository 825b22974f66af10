"""Terms of one or more words, found in a text: of overlapping ones the longest."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from clinprompt.knowledge.words import american, canonical, words_of

_KEY = 3  # letters by which first words that end in "*" are looked up; a stem before "*" has no fewer

Owner = TypeVar("Owner", bound=Hashable)


@dataclass(frozen=True)
class Found(Generic[Owner]):
    """A term in a text: its words are `start` to `stop`, exclusive; `owners` are all who have it."""

    start: int
    stop: int
    owners: frozenset[Owner]


@dataclass
class Lexicon(Generic[Owner]):
    """Terms with their owners. A word of a term that ends in "*" stands for all words that begin so."""

    _terms: dict[tuple[str, ...], set[Owner]] = field(default_factory=dict)
    _by_word: defaultdict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))
    _by_stem: defaultdict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, terms: Iterable[str], owner: Owner) -> None:
        """Let an owner have some terms."""
        for term in terms:
            words = term_words(term)
            if words not in self._terms:
                self._terms[words] = set()
                if words[0].endswith("*"):
                    self._by_stem[words[0][:_KEY]].append(words)
                else:
                    self._by_word[words[0]].append(words)
            self._terms[words].add(owner)

    def find(self, words: Sequence[str]) -> list[Found[Owner]]:
        """The terms in a text, from left to right, none of which overlap.

        Args:
            words: as `canonical_words` gives them.
        """
        found, start = [], 0
        while start < len(words):
            word = words[start]
            near = (*self._by_word.get(word, ()), *self._by_stem.get(word[:_KEY], ()))
            fitting = [term for term in near if _fits(term, words, start)]
            if fitting:
                longest = max(fitting, key=_rank)
                # A term that ends in "*" and one without it may be the same words here.
                same = [term for term in fitting if len(term) == len(longest)]
                owners = frozenset(owner for term in same for owner in self._terms[term])
                found.append(Found(start, start + len(longest), owners))
                start += len(longest)
            else:
                start += 1
        return found


def term_words(term: str) -> tuple[str, ...]:
    """The words of a term in the form in which they are compared, "*" kept."""
    words: list[str] = []
    for part in term.split():
        of_part = words_of(part)
        if part.endswith("*"):
            words += [*map(canonical, of_part[:-1]), f"{american(of_part[-1])}*"]
        else:
            words += map(canonical, of_part)
    return tuple(words)


def _rank(term: tuple[str, ...]) -> tuple[int, bool, int]:
    return len(term), not any(word.endswith("*") for word in term), sum(map(len, term))


def _fits(term: tuple[str, ...], words: Sequence[str], start: int) -> bool:
    if start + len(term) > len(words):
        return False
    there = words[start : start + len(term)]
    return all(
        found.startswith(word[:-1]) if word.endswith("*") else found == word
        for word, found in zip(term, there, strict=True)
    )
