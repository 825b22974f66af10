"""`python -m components.mend`: put right what a kill, a full disk or a flipped byte left; then `dvc repro` goes on.

Removed are objects of DVC's local cache, and outputs below runs/, whose bytes are not what their digests say, and what
DVC wrote of processes that are gone. Half a dvc.lock is moved to .dvc/tmp: DVC takes what was done from its run cache.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from clinprompt import cli
from clinprompt.errors import BadParams, Interrupted
from clinprompt.files import remove
from components.inputs import DVC_LOCKS, OBJECTS, first_difference, is_whole, kept_outs, recorded_outs, yaml_of

_TMP = Path(".dvc/tmp")
_RWLOCK = _TMP / "rwlock"  # which processes read and write which path; rwlock.lock beside it is only held, not read
_RUNS = "runs"  # what lies elsewhere is the user's own: a dataset's files, or a link to them


def mend() -> Iterator[str]:
    """Mend the project in the working directory; what was done, a sentence each. All that DVC holds is hashed.

    Raises:
        BadParams: there is no DVC project here.
        Interrupted: DVC is at work in it.
    """
    yield from mend_after_kill()
    yield from _mend_objects()
    yield from _mend_outs()


def mend_after_kill() -> Iterator[str]:
    """The part that a kill of DVC itself makes necessary, which costs no time; raises as `mend`."""
    if not Path(".dvc").is_dir():
        raise BadParams(f"{Path.cwd()} is no DVC project; run this in the project's folder.")
    yield from _mend_rwlock()
    yield from _mend_dvc_locks()


def _mend_rwlock() -> Iterator[str]:
    """DVC forgets processes that are gone by itself, but neither half a file nor a number that another process got."""
    try:
        holders = _holders(json.loads(_RWLOCK.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError, AttributeError):
        remove(_RWLOCK)
        yield f"{_RWLOCK} was cut off and is removed."
        return
    for pid in holders:
        if _is_dvc(pid):
            raise Interrupted(f"DVC is at work here (process {pid}); wait until it has ended.")
    if holders:
        remove(_RWLOCK)
        yield f"{_RWLOCK} is removed: it named processes that are gone."


def _holders(entries: dict[str, Any]) -> list[int]:
    readers = [info for infos in entries.get("read", {}).values() for info in infos]
    return sorted({int(info["pid"]) for info in [*entries.get("write", {}).values(), *readers]})


def _is_dvc(pid: int) -> bool:
    """Whether a process is DVC's, and not another that got the number of one that is gone."""
    try:
        words = psutil.Process(pid).cmdline()[:3]
        return any("dvc" in Path(word).name or word == "components.run" for word in words)
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def _mend_dvc_locks() -> Iterator[str]:
    for lock in DVC_LOCKS:
        if lock.is_file() and not _is_lock(lock):
            half = _TMP / f"{'-'.join(lock.parts)}.half"
            half.parent.mkdir(parents=True, exist_ok=True)
            os.replace(lock, half)
            yield f"{lock} was cut off and is now {half}; `dvc repro` takes what was done from its run cache."


def _is_lock(path: Path) -> bool:
    """Whether DVC could read it: a kill leaves a beginning, which can be valid YAML."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml_of(path))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return False
    return True


def _mend_objects() -> Iterator[str]:
    for path in sorted(OBJECTS.glob("??/*")):
        if path.is_file() and not is_whole(path):
            remove(path)
            yield f"{path} is removed: its bytes are not those that its name says."


def _mend_outs() -> Iterator[str]:
    kept = kept_outs()
    for name, digests in sorted(recorded_outs().items()):
        out = Path(name)
        if out.parts[0] != _RUNS or any(pattern.fullmatch(name) for pattern in kept):
            continue
        if (wrong := first_difference(out, digests)) is not None:
            remove(out)
            yield f"{out} is removed: {wrong} is not what its stage made."


app = cli.application()


@app.command(help=__doc__)
def show() -> None:
    """Mend, and print what was done; nothing where nothing had to be."""
    for line in mend():
        sys.stdout.write(f"{line}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Mend; 64 outside of a project, 75 while DVC is at work."""
    return cli.main(app, argv, "python -m components.mend")


if __name__ == "__main__":
    sys.exit(main())
