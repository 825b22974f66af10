"""What an endpoint answers: the body of a chat completion, as the OpenAI API has it, trusted in nothing."""

import json
from dataclasses import dataclass
from typing import Any

_MOST = 200  # characters of what a server says of itself


class Malformed(Exception):
    """The body is no chat completion; the message ends the sentence "it answered …"."""


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        ended: the model itself ended it; False where it was cut.
        model, fingerprint: what the server says that it is; "" where it says nothing.
        tokens: of prompt and answer together; None where the server doesn't count.
    """

    text: str
    ended: bool
    model: str
    fingerprint: str
    tokens: int | None


def read_answer(body: bytes) -> Answer:
    """Read a chat completion. An answer without text is one, too: it is judged like any other.

    Raises:
        Malformed: it is not one.
    """
    try:
        content = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Malformed("bytes that are not UTF-8") from None
    except (ValueError, RecursionError):
        raise Malformed("what is not whole JSON") from None
    choices = content.get("choices") if isinstance(content, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    choice = first if isinstance(first, dict) else {}
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else 0
    if not isinstance(text, str | None):
        raise Malformed("JSON without choices[0].message.content")
    usage = content.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    return Answer(
        text=_encodable(text or ""),
        ended=choice.get("finish_reason") == "stop",
        model=_word(content.get("model")),
        fingerprint=_word(content.get("system_fingerprint")),
        tokens=tokens if type(tokens) is int and tokens >= 0 else None,
    )


def read_error(body: bytes) -> str:
    """What a server says of a request that it refuses, shortened; "" where it says nothing readable."""
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return ""
    error = content.get("error", content) if isinstance(content, dict) else None
    return _word(error.get("message") if isinstance(error, dict) else error)


def _encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _word(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in _encodable(value)).split())[:_MOST]
