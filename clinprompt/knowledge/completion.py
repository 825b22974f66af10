"""What is asked of a language model beside the prompt, and what comes of it."""

from dataclasses import dataclass

from clinprompt.files import sha256_bytes


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the most probable one at temperature 0, else by nucleus (top-p) sampling.

    The nucleus is the smallest set of tokens whose probabilities, at this temperature, sum to `top_p`; it holds at most
    1000 tokens.
    """

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Completion:
    """The new tokens, without the end-of-sequence token, their text, and whether the model itself ended.

    Of an endpoint's answer the tokens are not known, and `revision` is what the endpoint says that it is.
    """

    tokens: list[int]
    text: str
    ended: bool
    revision: str | None = None


def seed_of(*parts: object) -> int:
    """A 63-bit seed from the digest of the parts, such as (seed, class, aspect, index)."""
    digest = sha256_bytes("\x1f".join(str(part) for part in parts).encode())
    return int(digest[:16], 16) >> 1
