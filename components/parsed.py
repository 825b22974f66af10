"""What the stage `lock` has read of the sources, kept for the stages after it, which would parse the same files again.

It is no part of any result: where the file is missing, damaged or from other code, the sources are parsed.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from clinprompt import sources
from clinprompt.files import sha256_bytes, sha256_file, write_text

PARSED = Path(".dvc/tmp/sources.json")  # in a project's folder


def keep(root: Path) -> None:
    """Write down what this process has read, if DVC keeps this folder; where that can't be done, nothing is lost."""
    if not (root / ".dvc").is_dir():
        return
    read = {key: [code.imports, sorted(code.texts), code.digest] for key, code in sources.all_read().items()}
    text, path = json.dumps(read, sort_keys=True), root / PARSED
    kept = f"{_head(text)}\n{text}\n"
    with suppress(OSError):
        if not path.is_file() or path.read_bytes() != kept.encode():
            write_text(path, kept)
            shutil.copymode(__file__, path)  # it tells of the code alone, and is as readable


def recall(root: Path) -> None:
    """Take over what `keep` wrote, if it is whole and the same code wrote it."""
    try:
        head, text = (root / PARSED).read_text(encoding="utf-8").splitlines()
        read: dict[str, Any] = json.loads(text) if head == _head(text) else {}
    except (OSError, ValueError):
        return
    sources.take_over({key: sources.Code(tuple(a), frozenset(b), c) for key, (a, b, c) in read.items()})


def _head(text: str) -> str:
    return f"{sha256_file(Path(sources.__file__))} {sha256_bytes(text.encode())}"
