"""How a scheduler and a task talk: the text that holds a task, the key of a run, and how long an entry may be."""

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from typing import Any

MAX_ENTRY_BYTES = 2048  # a scheduler keeps every entry in its database
LOCK_STAGE = "lock"  # the stage of dvc.yaml that is no task: the plan holds what it would write


@dataclass(frozen=True, order=True)
class PartitionKey:
    """What makes a run one of its kind: a release of a dataset."""

    dataset: str
    release: str

    def __str__(self) -> str:
        """As a scheduler keeps it: `dataset@release`."""
        return f"{self.dataset}@{self.release}"

    @classmethod
    def parse(cls, text: str) -> "PartitionKey":
        """The inverse of `str`.

        Raises:
            ValueError: one of the two is missing.
        """
        dataset, _, release = text.partition("@")
        if not dataset or not release:
            raise ValueError(f"expected DATASET@RELEASE, found {text!r}")
        return cls(dataset, release)


def pack(task: dict[str, Any]) -> str:
    """The value of the variable CLINPROMPT_TASK: base64 of zlib of JSON. Equal tasks give equal texts."""
    text = json.dumps(task, sort_keys=True, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(text: str) -> Any:
    """The inverse of `pack`.

    Raises:
        ValueError: the text is something else.
    """
    try:
        return json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        raise ValueError("it is not base64 of zlib of JSON") from None
