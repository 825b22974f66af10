"""The project's YAML files as the DAGs read them, with errors that name the file and the key."""

import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 with the numbers of YAML 1.2, where `2e-3` needs no dot and no sign, as in clinprompt/schema.py."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


class BadDocument(ValueError):
    """A file is missing, is no YAML, or has a key or value that it must not have."""


def read_yaml(root: Path, name: str) -> Any:
    """Read `root/name`.

    Raises:
        BadDocument: there is no such file, or it is not YAML.
    """
    try:
        return yaml.load((root / name).read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 # a safe loader
    except FileNotFoundError:
        raise BadDocument(f"{name}: does not exist in {root}.") from None
    except OSError as error:
        raise BadDocument(f"{name}: can't be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError, as bad UTF-8 is
        raise BadDocument(f"{name}: is not valid YAML: {' '.join(str(error).split())}") from None


def check(value: Any, schema: dict[str, Any], name: str, prefix: str = "") -> None:
    """Validate a document's value against a JSON schema.

    Raises:
        BadDocument: names the file, the key and what is wrong with it.
    """
    errors = sorted(Draft202012Validator(schema).iter_errors(value), key=lambda e: [str(part) for part in e.path])
    if errors:
        raise BadDocument(f"{name}: {'; '.join(_describe(error, prefix) for error in errors)}.")


def _describe(error: ValidationError, prefix: str) -> str:
    key = ".".join([prefix] * bool(prefix) + [str(part) for part in error.path])
    return f"{key}: {error.message}" if key else error.message
