"""Records: the files by which one stage says to the next what it did, each with a model that reads and writes it."""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import read_json, write_json
from clinprompt.schema import check


class RecordPart(BaseModel):
    """A part of a record: immutable, unknown keys refused, no silent conversion of types.

    A field with a default is written only where it holds something else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return self.model_dump(exclude_defaults=True)


class Record(RecordPart):
    """The whole of a JSON file, with the number of its format.

    Attributes:
        STAGE: which stage writes it, for messages.
    """

    FORMAT: ClassVar[int] = 1
    STAGE: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """As plain values, the format among them."""
        return {"format": self.FORMAT, **super().to_json()}

    def write(self, path: Path) -> None:
        """Write it atomically; equal records give equal bytes."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file.

        Raises:
            InputMissing: there is no such file.
            InputCorrupt: it is no such record, or one of another version.
        """
        return cls.parse(read_json(path), path)

    @classmethod
    def parse(cls, content: Any, path: Path) -> Self:
        """The record of a file's plain values.

        Raises:
            InputCorrupt: it is no such record, or one of another version.
        """
        again = f"Delete it and run the {cls.STAGE} stage again (dvc repro)."
        if not isinstance(content, dict):
            raise InputCorrupt(f"{path} is no record of the {cls.STAGE} stage. {again}")
        if content.get("format") != cls.FORMAT:
            problem = f"format {content.get('format')!r} is not {cls.FORMAT}, the one that this version reads"
            raise InputCorrupt(f"{path}: {problem}. {again}")
        try:
            return check(cls, {key: value for key, value in content.items() if key != "format"}, str(path))
        except BadParams as error:
            raise InputCorrupt(f"{error} {again}") from None
