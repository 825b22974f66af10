"""`aspects.yaml`: what a language model is asked of a class."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from clinprompt.schema import Section, check, read_yaml

_FILE = Path(__file__).with_name("aspects.yaml")
_FIELDS = {"modality", "organ", "name", "phrase", "sibling"}


def _template(text: str) -> str:
    if unknown := set(re.findall(r"\{([^}]*)\}", text)) - _FIELDS:
        raise ValueError(f"{{{unknown.pop()}}} is none of {', '.join(sorted(_FIELDS))}")
    return text


_Template = Annotated[str, AfterValidator(_template)]


class Aspect(Section):
    """A question, and the words with which its answer must begin."""

    ask: _Template
    begin: _Template
    of_each_sibling: bool = False


class Aspects(Section):
    """The whole file: `frame` stands before each question, `features` is what hidden states are taken from."""

    frame: _Template
    features: Aspect
    aspects: dict[str, Aspect]


@cache
def read_aspects() -> Aspects:
    """The file.

    Raises:
        BadParams: it is not as it should be; the key is named.
    """
    return check(Aspects, read_yaml(_FILE), str(_FILE))
