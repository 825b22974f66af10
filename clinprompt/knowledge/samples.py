"""Finished texts, kept so that none is made or asked for twice: a folder of files that are written once, by their key.

A key is the digest of all that decides the text, so a text that is found is the one that would be made.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from clinprompt.errors import InputCorrupt
from clinprompt.files import read_json, sha256_bytes, to_json, write_json
from clinprompt.knowledge.completion import Completion


def key_of(parts: Any) -> str:
    """The digest of a JSON value."""
    return sha256_bytes(to_json(parts).encode())


class Samples:
    """The folder; without one nothing is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, key: str, count: int = 1) -> list[Completion] | None:
        """The texts under a key, as many as were asked for, or None.

        Raises:
            InputCorrupt: the file is damaged.
        """
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        content = read_json(path)
        if not isinstance(content, list) or len(content) != count or not all(map(_is_completion, content)):
            raise InputCorrupt(f"{path} does not hold finished samples. Delete it and run again.")
        return [Completion(**one) for one in content]

    def keep(self, key: str, completions: Sequence[Completion]) -> None:
        """Write texts under their key, whole or not at all."""
        path = self._path(key)
        if path is not None:
            write_json(path, [vars(completion) for completion in completions])

    def _path(self, key: str) -> Path | None:
        return self._folder and self._folder / key[:2] / f"{key}.json"


def _is_completion(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {field.name for field in fields(Completion)}
        and isinstance(value["tokens"], list)
        and all(type(token) is int for token in value["tokens"])
        and isinstance(value["text"], str)
        and isinstance(value["ended"], bool)
        and isinstance(value["revision"], str | None)
    )
