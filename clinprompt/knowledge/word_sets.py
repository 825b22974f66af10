"""Sets of words that are compared with each other, kept by word, so that thousands can be searched one by one."""

from array import array
from collections.abc import Iterable

import numpy as np


class WordSets:
    """Sets of words, and the largest Jaccard index of another set with one of them."""

    def __init__(self, sets: Iterable[frozenset[str]] = ()) -> None:
        self._sizes = array("q")
        self._holders: dict[str, array[int]] = {}  # of each word, the numbers of the sets that hold it
        for words in sets:
            self.add(words)

    def add(self, words: frozenset[str]) -> None:
        """Keep a set."""
        for word in words:
            self._holders.setdefault(word, array("q")).append(len(self._sizes))
        self._sizes.append(len(words))

    def nearest(self, words: frozenset[str]) -> float:
        """The largest |a ∩ b| / |a ∪ b| of the words with a kept set; 0 where no set shares one."""
        return float(self.similarities(words).max(initial=0))

    def similarities(self, words: frozenset[str]) -> np.ndarray:
        """The Jaccard index |a ∩ b| / |a ∪ b| of the words with each kept set, in the order of keeping."""
        # A view keeps its array from growing: `concatenate` copies, and no view outlives this method.
        holders = [np.frombuffer(self._holders[word], np.int64) for word in words if word in self._holders]
        if not holders:
            return np.zeros(len(self._sizes))
        shared = np.bincount(np.concatenate(holders), minlength=len(self._sizes))
        together = np.frombuffer(self._sizes, np.int64) + len(words) - shared  # never 0: `words` is not empty here
        return np.asarray(shared / together)
