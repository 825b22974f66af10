"""Checked YAML files: every key must exist and have the right type, and an error names it by its path."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import read_regular
from clinprompt.yaml_text import MAX_CHARACTERS, parse_yaml, to_yaml

__all__ = [
    "Fraction",
    "Name",
    "Section",
    "UserPath",
    "check",
    "key_errors",
    "no_such_key",
    "parse_yaml",
    "read_yaml",
    "to_yaml",
]

Count = Annotated[int, Field(ge=1, le=1_000_000)]  # more is a slip of the hand, which would end in no memory
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
UserPath = Annotated[str, AfterValidator(os.path.expanduser)]  # "~" is the user's home

_MOST_SHOWN = 200  # characters of a wrong value in a message
_KEYS = "keys"  # the type of the error that `key_errors` makes


class Section(BaseModel):
    """A part of a checked YAML file: immutable, unknown keys refused, no silent conversion of types, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """Read a YAML file without executing anything in it.

    Raises:
        InputMissing: there is no such file.
        BadParams: it is no file that can be read, not YAML, or larger or deeper than `clinprompt.yaml_text` allows.
    """
    try:
        return parse_yaml(read_regular(path, 4 * MAX_CHARACTERS + 1).decode("utf-8"))
    except InputCorrupt as error:
        raise BadParams(str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadParams(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def check(model: type[S], value: Any, where: str, prefix: str = "") -> S:
    """Validate `value` against a pydantic model.

    Args:
        where: the file that the value comes from, for the message.
        prefix: the path inside that file at which the value stands, as "methods.coop".

    Raises:
        BadParams: names the file, the key's path, what was expected and what was found.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(_describe(e, model, prefix) for e in error.errors(include_url=False))
        raise BadParams(f"{where}: {problems}.") from None


def key_errors(problems: Iterable[str]) -> PydanticCustomError:
    """The error of a validator that has looked inside its value: sentences that start with a key's path below it."""
    sentences = list(problems)
    return PydanticCustomError(_KEYS, "; ".join(sentences).replace("{", "{{").replace("}", "}}"), {"keys": sentences})


def no_such_key(key: str, known: Iterable[str]) -> str:
    """The sentence about an unknown key, given its whole path: the closest of the known ones, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(names)}"
    return f"{key}: no such key ({hint})"


def _describe(error: Any, model: type[BaseModel], prefix: str) -> str:
    loc = [str(part) for part in error["loc"]]
    key = ".".join(([prefix] if prefix else []) + loc) or "the file"
    if error["type"] == "extra_forbidden":
        return no_such_key(key, _fields_at(model, loc[:-1]))
    if error["type"] == _KEYS:
        return "; ".join(f"{key}.{sentence}" for sentence in error["ctx"]["keys"])
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if loc else message
    shown = repr(error["input"])
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}…"
    return f"{key}: {message[0].lower()}{message[1:]}, found {shown}"


def _fields_at(model: type[BaseModel], loc: list[str]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)
