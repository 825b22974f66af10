"""Checked YAML files: every key must exist and have the right type, and an error names it by its path."""

import difflib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from clinprompt.errors import BadParams, InputMissing

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
UserPath = Annotated[str, AfterValidator(os.path.expanduser)]  # "~" is the user's home

_DEEPEST, _MOST_VALUES, _LONGEST = 50, 200_000, 20_000_000  # levels, values, bytes of a YAML file
_MOST_SHOWN = 200  # characters of a wrong value in a message
_KEYS = "keys"  # the type of the error that `key_errors` makes


class Section(BaseModel):
    """A part of a checked YAML file: immutable, unknown keys refused, no silent conversion of types, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2, where `2e-3` needs no dot and no sign, within bounds.

    An alias counts as all that it stands for: a few lines of them can mean more values than there is memory.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias, before = self.check_event(yaml.AliasEvent), self._values
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} values inside each other")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("a value that contains itself")
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > _MOST_VALUES:
            raise yaml.YAMLError(f"more than {_MOST_VALUES} values")
        if not is_alias:
            self._sizes[id(node)] = self._values - before
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_Loader` would take for numbers."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, without executing anything in it.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 # a safe loader
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:  # of PyYAML's constructors
        raise yaml.YAMLError(f"a value that can't be read ({error})") from None


def to_yaml(value: Any, **options: Any) -> str:
    """What `parse_yaml` reads; `options` are those of `yaml.safe_dump`."""
    text: str = yaml.dump(value, Dumper=_Dumper, **options)
    return text


def read_yaml(path: Path) -> Any:
    """Read a YAML file without executing anything in it.

    Raises:
        InputMissing: there is no such file.
        BadParams: it is no file that can be read, or not YAML.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LONGEST:  # reading a pipe would wait for its writer
            raise BadParams(f"{path} is no YAML file of at most {_LONGEST // 1_000_000} MB.")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist.") from None
    except OSError as error:
        raise BadParams(f"{path} can't be read: {error.strerror}.") from None
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
