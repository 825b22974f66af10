"""The names by which texts mention the classes of a card, found in a text by their first words."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinprompt.data.card import ClassInfo
from clinprompt.knowledge.words import NO_MENTIONS, words_of


@dataclass(frozen=True)
class ClassName:
    """A name in words, and whose it is; `rank` orders a card's, longest first, as those count where names overlap."""

    rank: int
    words: tuple[str, ...]
    class_id: str

    def places(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Where it stands in a text, from its first word to behind its last one, which can be in the plural."""
        last = {self.words[-1], f"{self.words[-1]}s"}
        size = len(self.words)
        return [
            (start, start + size)
            for start in range(len(words) - size + 1)
            if words[start + size - 1] in last and tuple(words[start : start + size - 1]) == self.words[:-1]
        ]


class ClassNames:
    """All names of a card's classes."""

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        self._own = {info.id: [plain_words(text) for text in (info.name, info.phrase, info.id)] for info in classes}
        self._by_first: dict[str, list[ClassName]] = {}
        named = [(name, info.id) for info in classes for name in _names(info)]
        for rank, (name, class_id) in enumerate(sorted(named, key=lambda pair: (-len(pair[0]), pair))):
            of_class = ClassName(rank, tuple(name.split()), class_id)
            first = of_class.words[0]
            for word in (first, f"{first}s") if len(of_class.words) == 1 else (first,):
                self._by_first.setdefault(word, []).append(of_class)

    def possible(self, words: Sequence[str]) -> list[ClassName]:
        """The names whose first word is in a text, in the order of their ranks; no other one can stand in it."""
        found = {name.rank: name for word in set(words) for name in self._by_first.get(word, ())}
        return [found[rank] for rank in sorted(found)]

    def in_own(self, name: ClassName, class_id: str) -> bool:
        """Whether a name stands in the name, the phrase or the id of a class."""
        return any(name.places(words) for words in self._own.get(class_id, ()))


def plain_words(text: str) -> list[str]:
    """The text's words, as `words_of` gives them; "_" parts words, too."""
    return words_of(text.replace("_", " "))


def _names(class_info: ClassInfo) -> set[str]:
    """The names by which a text may mention the class: its name and id, but not aliases, which can be "0" or "no", and
    no number, single letter or ordinary English word."""
    names = {" ".join(plain_words(name)) for name in (class_info.name, class_info.id)}
    return {name for name in names if not set(name.split()) <= NO_MENTIONS and not re.fullmatch(r"[\d ]*|\w", name)}
