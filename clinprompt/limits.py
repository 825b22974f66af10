"""What a method's knobs must keep to, given what the backbone and the language model are.

A method's `Config` declares its limits once, as `LIMITS`. They are asked before anything slow runs, of sizes as files
declare them, and again where the method is built, of the loaded towers. They stand in `params.schema.json` too, for
programs without torch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from clinprompt.schema import Section

SizeName = Literal[
    "text_blocks", "image_blocks", "positions", "tokens", "patches", "patch", "fewest_states", "most_states"
]
Sizes = Callable[[SizeName], int | None]  # None: it is not known

_WORDS: dict[SizeName, str] = {
    "text_blocks": "the blocks of the backbone's text tower",
    "image_blocks": "the blocks of the backbone's image tower",
    "positions": "the tokens that the backbone's text tower reads",
    "tokens": "the tokens that the backbone's tokeniser gives",
    "patches": "the patches of an image",
    "patch": "the side of the backbone's patches",
    "fewest_states": "the language model's rows",
    "most_states": "the language model's rows",
}


class Limit(Section):
    """One limit.

    Attributes:
        knobs: those whose sum is limited; where one is null, there is nothing to limit.
        kind: "at_most" a size, a "multiple_of" it, or rows counted within it ("index_of"), also from its end.
        size: what limits them. Of a language model's rows those count that `llm_layers` picks.
        plus: what always takes its part of the size; `beside` says what that is.
        plus_rows: whether the language model's rows take their part too.
        when: the values of other knobs with which the limit holds.
    """

    knobs: list[str]
    kind: Literal["at_most", "multiple_of", "index_of"]
    size: SizeName
    plus: int = 0
    beside: str = ""
    plus_rows: bool = False
    when: dict[str, Any] = {}

    def problem(self, knobs: Mapping[str, Any], sizes: Sizes) -> str | None:
        """What is wrong with a method's knobs, all of them given: a sentence that starts with the knob."""
        values = [knobs[name] for name in self.knobs]
        if None in values or any(knobs[name] != value for name, value in self.when.items()):
            return None
        size = _rows(self.size, knobs, sizes) if self.kind == "at_most" else sizes(self.size)
        rows = _rows("most_states", knobs, sizes) if self.plus_rows else 0
        if size is None or rows is None:
            return None
        name, what = " + ".join(self.knobs), _WORDS[self.size]
        if self.kind == "index_of":
            wrong = any(not -size <= row < size for listed in values for row in listed)
            return f"{name}: must be below {size}, {what}, found {values[0]}" if wrong else None
        if self.kind == "multiple_of":
            return f"{name}: must be a multiple of {size}, {what}, found {values[0]}" if values[0] % size else None
        bound = size - self.plus - rows
        if sum(values) <= bound:
            return None
        taken = [f"{rows} rows of the language model"] if self.plus_rows else []
        taken += [self.beside] if self.plus else []
        less = f" ({size}, {what}, less {' and '.join(taken)})" if taken else f", {what}"
        return f"{name}: must be at most {max(bound, 0)}{less}, found {sum(values)}"


def problems(limits: Iterable[Limit], knobs: Mapping[str, Any], sizes: Sizes) -> list[str]:
    """All that is wrong with a method's knobs; what is not known is not held against them."""
    found = (limit.problem(knobs, sizes) for limit in limits)
    return [problem for problem in found if problem is not None]


def _rows(size: SizeName, knobs: Mapping[str, Any], sizes: Sizes) -> int | None:
    picked = knobs.get("llm_layers")
    return len(picked) if picked is not None and size in ("fewest_states", "most_states") else sizes(size)
