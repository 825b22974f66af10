"""A component's inputs, held against the digests under which DVC has them, before anything is computed from them.

DVC looks at a file's time and size and takes a read-only object of its cache for whole, so a byte that a disk flipped
is checked out and used. `dvc.lock` says what each stage made, in a clone as in a scheduler's workspace.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from clinprompt.contract.variables import TASK
from clinprompt.errors import InputCorrupt

GRAPH = Path("dvc.yaml")
DVC_LOCKS = (Path("dvc.lock"), Path("experiments/dvc.lock"))  # both with paths from the project's folder
OBJECTS = Path(".dvc/cache/files/md5")  # DVC's local cache: each object under its MD5
STAGE = "DVC_STAGE"  # which DVC sets for the commands that it runs
MEND = "python -m components.mend"

# Read through `read_image`, which holds each file against the manifest's digest: gigabytes are not hashed twice.
_CHECKED_WHERE_READ = {"images"}
_TEMPLATE = re.compile(r"\$\{[^}]*\}")
_CHUNK = 1 << 20


def check_inputs(inputs: dict[str, Path]) -> None:
    """Hold a component's inputs, by their names in its interface, against `dvc.lock`.

    Nothing is checked where DVC is not what runs the component: the lock then need not be about its inputs.

    Raises:
        InputCorrupt: a file is not the one that its stage made; it is named, and so is what mends it.
    """
    if not os.environ.get(STAGE):
        return
    recorded = recorded_outs()
    for path in {path for name, path in inputs.items() if name not in _CHECKED_WHERE_READ}:
        for out, digests in recorded.items():
            if _overlap(Path(out), path) and (wrong := first_difference(Path(out), digests)) is not None:
                raise InputCorrupt(f"{wrong} is not what its stage made, by its digest in dvc.lock; {_advice()}.")


def yaml_of(path: Path) -> Any:
    """A YAML file of DVC's, which can have a hundred thousand lines: read with the fast loader where there is one.

    Raises:
        yaml.YAMLError, UnicodeDecodeError: it is none.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 -- both loaders are safe


def recorded_outs() -> dict[str, set[str]]:
    """The MD5s of each output that a `dvc.lock` tells of: several where a stage that is gone made the same path.

    Those of the stage `lock` are left out: `dvc repro` renews them first, and the runner looks at them itself.
    """
    recorded: dict[str, set[str]] = {}
    for lock in DVC_LOCKS:
        stages = (yaml_of(lock) or {}).get("stages", {}) if lock.is_file() else {}
        for out in (out for name, stage in stages.items() if name != "lock" for out in stage.get("outs", [])):
            if "md5" in out:
                recorded.setdefault(out["path"], set()).add(out["md5"])
    return recorded


def kept_outs() -> list[re.Pattern[str]]:
    """The paths of outputs that their stages go on from, where a kill may have left more than was recorded of them."""
    stages = (yaml_of(GRAPH) or {}).get("stages", {}) if GRAPH.is_file() else {}
    outs = [out for stage in stages.values() for out in stage.get("outs", []) if isinstance(out, dict)]
    templates = [path for out in outs for path, options in out.items() if options.get("persist")]
    return [re.compile("[^/]+".join(map(re.escape, _TEMPLATE.split(path)))) for path in templates]


def first_difference(out: Path, digests: Iterable[str]) -> Path | None:
    """The first file that keeps an output from being any of what was recorded of it; None where it is one of them.

    An output that is not there is none to compute from: whoever needs it says so.
    """
    wrong = None
    for digest in sorted(digests):
        differing = _differences(out, digest) if out.exists() else iter(())
        wrong = next(differing, None)
        if wrong is None:
            return None
    return wrong


def md5_file(path: Path) -> str:
    """MD5 of a file's bytes, in hex, as DVC names it."""
    total = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def object_path(digest: str) -> Path:
    """Where DVC's local cache has an object."""
    return OBJECTS / digest[:2] / digest[2:]


def is_whole(path: Path) -> bool:
    """Whether the bytes of an object of the cache are those that its name says."""
    return md5_file(path) == f"{path.parent.name}{path.name}".removesuffix(".dir")


def _differences(out: Path, digest: str) -> Iterator[Path]:
    if not digest.endswith(".dir"):
        if not out.is_file() or md5_file(out) != digest:
            yield out
        return
    listing = object_path(digest)
    if listing.is_file() and is_whole(listing):
        for entry in json.loads(listing.read_bytes()):
            file = out / entry["relpath"]
            if not file.is_file() or md5_file(file) != entry["md5"]:
                yield file
    elif not out.is_dir() or _folder_digest(out) != digest:
        yield out


def _folder_digest(folder: Path) -> str:
    """DVC's digest of a folder: the MD5 of its listing, without the files that .dvcignore names."""
    patterns = _ignored()
    files = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    listed = {name.as_posix(): file for name, file in files.items() if not _is_ignored(name, patterns)}
    entries = [{"md5": md5_file(listed[name]), "relpath": name} for name in sorted(listed)]
    text = json.dumps(entries, sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"


def _ignored() -> list[str]:
    path = Path(".dvcignore")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_ignored(name: Path, patterns: list[str]) -> bool:
    return any(fnmatch(part, pattern) for part in name.parts for pattern in patterns)


def _overlap(out: Path, path: Path) -> bool:
    return out == path or out in path.parents or path in out.parents


def _advice() -> str:
    if os.environ.get(TASK):
        return "run the task again, which fetches it anew"
    return f"run `{MEND} && dvc repro`, which removes it and makes it again"
