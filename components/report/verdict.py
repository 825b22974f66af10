"""What the report reads of the verdict on the data, checked before anything is shown of it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinprompt.errors import InputCorrupt
from clinprompt.files import read_json

_File = Annotated[str, Field(pattern=r"^[0-9a-f]{2}/[0-9a-f]{64}[.A-Za-z0-9]*$")]  # of ingest's copies, and no other


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Check(_Part):
    name: str
    severity: str
    message: str
    passed: bool | None


class _Dropped(_Part):
    id: str
    file: _File
    label: str
    split: str
    reason: str
    similarity: float | None
    twin_id: str
    twin_file: _File
    twin_label: str
    twin_split: str


class _Flagged(_Part):
    id: str
    file: _File
    label: str
    split: str
    checks: list[str]


class _Verdict(_Part):
    verdict: str
    counts: dict[str, dict[str, int]]
    checks: list[_Check]
    dropped: list[_Dropped]
    flagged: list[_Flagged]
    flagged_images: int
    leaks: dict[str, Any] | None = None


def read_verdict(path: Path) -> dict[str, Any]:
    """The plain values of `verdict.json`.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is none that the stage validate writes, or names files that are none of ingest's.
    """
    content = read_json(path)
    try:
        _Verdict.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole of it"
        raise InputCorrupt(
            f"{path} is not what the validate stage writes ({where}). Delete it and run that stage again (dvc repro)."
        ) from None
    verdict: dict[str, Any] = content
    return verdict
