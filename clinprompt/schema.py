"""Checked YAML files: every key must exist and have the right type, and an error names it by its path."""

import difflib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinprompt.errors import BadParams, InputMissing

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Section(BaseModel):
    """A part of a checked YAML file: immutable, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


S = TypeVar("S", bound=BaseModel)


def read_yaml(path: Path) -> Any:
    """Read a YAML file without executing anything in it.

    Raises:
        InputMissing: there is no such file.
        BadParams: it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist.") from None
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


def _describe(error: Any, model: type[BaseModel], prefix: str) -> str:
    loc = [str(part) for part in error["loc"]]
    key = ".".join(([prefix] if prefix else []) + loc) or "the file"
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        close = difflib.get_close_matches(loc[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"{key}: no such key ({hint})"
    if error["type"] == "missing":
        return f"{key}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}: {message}" if loc else message
    return f"{key}: {message[0].lower()}{message[1:]}, found {error['input']!r}"


def _fields_at(model: type[BaseModel], loc: list[str]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)
