"""One file per method. `@register` makes a class a method; nothing else knows the methods' names.

Listing the names imports no torch, and neither does reading a finished model (`clinprompt.tuned.artifact`).
"""

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clinprompt.errors import BadParams
from clinprompt.schema import Section, check

if TYPE_CHECKING:
    from clinprompt.prompting.base import PromptMethod

M = TypeVar("M", bound="type[PromptMethod]")

# The method that trains nothing: what tuned models are compared with.
BASELINE = "zero_shot"

_METHODS: "dict[str, type[PromptMethod]]" = {}


def register(name: str) -> Callable[[M], M]:
    """Make the decorated class the method `name`, which must be the name of its file and of no other class.

    Raises:
        ValueError: the name is another one, or taken.
    """

    def decorate(cls: M) -> M:
        if cls.__module__ != f"{__name__}.{name}":
            raise ValueError(f"the method {name!r} must be in {__name__}.{name}, found in {cls.__module__}")
        if name in _METHODS:
            raise ValueError(
                f"the method {name!r} is registered twice, by {_METHODS[name].__name__} and {cls.__name__}"
            )
        cls.name = name
        _METHODS[name] = cls
        return cls

    return decorate


def names() -> list[str]:
    """The methods that exist, sorted: the files of this folder."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")


def method(name: str) -> "type[PromptMethod]":
    """The class of a method.

    Raises:
        BadParams: there is no method of this name.
        ValueError: its file registers no method.
    """
    if name not in _METHODS:
        if name not in (methods := names()):
            close = difflib.get_close_matches(name, methods, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise BadParams(
                f"params.yaml: candidates.methods: there is no method {name!r}; {hint}known: {', '.join(methods)}."
            )
        importlib.import_module(f"{__name__}.{name}")
    if name not in _METHODS:
        raise ValueError(f"{__name__}.{name} registers no method: decorate its class with @register({name!r})")
    return _METHODS[name]


def check_config(name: str, value: dict[str, Any]) -> Section:
    """The knobs of a method, as they stand in `params.yaml` under `methods.<name>`, checked.

    Raises:
        BadParams: the method does not exist, or a key is unknown, missing or wrong; it is named by its path.
    """
    return check(method(name).Config, value, "params.yaml", f"methods.{name}")
