"""The knobs of methods and protocols, checked against their JSON schema where a file is loaded.

The methods' own models, which check once more where a method is built, need torch; this needs only the schema. What is
wrong is said as `clinprompt.schema.check` says it.
"""

import difflib
import math
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from clinprompt.contract.params_schema import params_schema
from clinprompt.schema import Name, key_errors, no_such_key

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

NEW_METHOD = "for a new method, run python -m clinprompt.experiments.schema"

LARGEST = 1_000_000_000  # no count of anything is larger

_TYPES = {
    "array": "list", "boolean": "boolean", "integer": "integer", "null": "null", "number": "number",
    "object": "dictionary", "string": "string",
}  # fmt: skip
_BOUNDS = {
    "minimum": "greater than or equal to",
    "exclusiveMinimum": "greater than",
    "maximum": "less than or equal to",
    "exclusiveMaximum": "less than",
}


def knob_problems(method: str, knobs: dict[str, Any]) -> list[str]:
    """What is wrong with some knobs of a method: sentences that start with the key."""
    return _problems(f"#/$defs/methods/properties/{method}", knobs)


def _checked(section: str, value: Any) -> Any:
    if problems := _problems(f"#/$defs/{section}", value):
        raise key_errors(problems)
    return value


Knobs = Annotated[dict[Name, dict[str, Any]], AfterValidator(lambda value: _checked("methods", value))]
ProtocolKnobs = Annotated[dict[str, Any], AfterValidator(lambda value: _checked("protocols", value))]


def _problems(reference: str, value: Any) -> list[str]:
    errors = _validator(reference).iter_errors(value)
    return [sentence for error in sorted(errors, key=lambda e: list(map(str, e.path))) for sentence in _describe(error)]


@cache
def _validator(reference: str) -> "Draft202012Validator":
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # 4.0 is no whole number and NaN none at all, as in the models.
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, x: type(x) is int and x <= LARGEST)
    types = types.redefine("number", lambda _, x: type(x) in (int, float) and math.isfinite(x))
    strict = extend(Draft202012Validator, type_checker=types)
    return strict({"$defs": params_schema()["$defs"], "$ref": reference})


def _describe(error: "ValidationError") -> Iterator[str]:
    path = [str(part) for part in error.absolute_path]
    kind, bound, value = error.validator, error.validator_value, error.instance
    if kind == "anyOf":  # the one alternative beside null
        for inner in error.context:
            if bound[inner.schema_path[0]] != {"type": "null"}:
                yield from _describe(inner)
    elif kind == "additionalProperties":
        known = error.schema.get("properties", {})
        hint = f"; {NEW_METHOD}" if error.schema == params_schema()["$defs"]["methods"] else ""
        yield from (no_such_key(".".join([*path, str(key)]), known) + hint for key in value if key not in known)
    elif kind == "required":
        missing = error.message.removesuffix(" is a required property").strip("'")
        yield f"{'.'.join([*path, missing])}: missing"
    else:
        yield f"{'.'.join(path)}: {_expected(kind, bound, error)}, found {value!r}"


def _expected(kind: str, bound: Any, error: "ValidationError") -> str:
    if kind == "type" and bound == "integer" and type(error.instance) is int:
        return f"input should be less than or equal to {LARGEST}"
    if kind == "type":
        finite = bound != "number" or type(error.instance) is not float
        return f"input should be a {'valid' if finite else 'finite'} {_TYPES[bound]}"
    if kind in _BOUNDS:
        return f"input should be {_BOUNDS[kind]} {bound}"
    if kind == "enum":
        close = difflib.get_close_matches(str(error.instance), bound, n=1)
        return f"there is no such name (did you mean {close[0]!r}?)" if close else f"input should be among {bound}"
    if kind == "minItems":
        return f"list should have at least {bound} item"
    return str(error.schema.get("errorMessage", error.message))
