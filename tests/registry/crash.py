"""Real promotions and rollbacks, killed at random moments or after each of their writes; then any verb.

    PYTHONPATH=. python tests/registry/crash.py promote rollback --moments 50 [--seed 1]
    PYTHONPATH=. python tests/registry/crash.py promote rollback --moments 0 --each-write promote rollback

Prints a line of JSON for each: how many were killed, and what the journal said then. It fails where the next verb, each
in turn, did not leave what it leaves after a change that was whole, or that was never begun.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from fabricate import Run, copy_run, fabricate
from fabricate import promote as promote_component
from forked import FORK, die_after, in_child
from mlflow import MlflowClient

import registry
from clinprompt.errors import InputMissing
from registry import listing, revert, tracking
from registry.protocol.folder import FolderStore
from registry.protocol.journal import UNFINISHED, Journal

NAME = "tiny"
ROOT = Path(__file__).parents[2]
WRITES: list[tuple[type, str]] = [
    (FolderStore, "create"), (FolderStore, "replace"), (MlflowClient, "create_model_version"),
    (MlflowClient, "set_model_version_tag"), (MlflowClient, "set_registered_model_alias"),
    (MlflowClient, "delete_registered_model_alias"),
]  # fmt: skip
State = tuple[dict[str, int], dict[int, str]]  # the aliases; the reasons of the versions in quarantine


def promote(run: Run) -> None:
    """Promote what the gate has chosen: version 2."""
    assert promote_component(run) == 0


def rollback(run: Run) -> None:
    """Take the champion back; where there is none before it, nothing."""
    with suppress(InputMissing):
        registry.rollback(NAME, "bad")


def lift(run: Run) -> None:
    """Have a turn that changes nothing: version 1 is in no quarantine."""
    assert revert.lift(NAME, 1, "no reason")["action"] == "unchanged"


VERBS: dict[str, Callable[[Run], None]] = {"promote": promote, "rollback": rollback, "lift": lift}
FIRST: State = ({"champion": 1}, {})
SECOND: State = ({"champion": 2, "previous": 1}, {})
BACK: State = ({"champion": 1}, {2: "bad"})
STARTS = {"promote": FIRST, "rollback": SECOND}
# By what was killed and what came next: the ends where it had not been committed, and where it had.
ENDS: dict[tuple[str, str], tuple[State, State]] = {
    ("promote", "promote"): (SECOND, SECOND),
    ("promote", "rollback"): (FIRST, BACK),
    ("promote", "lift"): (FIRST, SECOND),
    ("rollback", "promote"): (SECOND, BACK),
    ("rollback", "rollback"): (BACK, BACK),
    ("rollback", "lift"): (SECOND, BACK),
}


def prepare(folder: Path) -> dict[str, Run]:
    """By verb, a project to begin it in: version 1 is the champion, and the gate has chosen another; that is promoted.

    All that MLflow and torch load and compile at first use is in this process then, and in those that fork from it.
    """
    torch.set_num_threads(1)  # a child that forks from a process with more waits for ever for those that it has not
    os.chdir(folder)
    run = fabricate(folder / "project", ROOT / "params.yaml")
    os.chdir(run.root)
    promote(run)
    run.tune(2, 0.9)
    assert run.decide("coop-2", champion=registry.champion(NAME))["verdict"] == "accepted"
    second = copy_run(run, folder / "promoted")
    os.chdir(second.root)
    promote(second)
    warm = copy_run(second, folder / "warm")
    os.chdir(warm.root)
    for verb in VERBS.values():
        verb(warm)
    return {"promote": run, "rollback": second}


def journal(run: Run) -> Journal:
    """The journal beside the project's registry."""
    return Journal(FolderStore(run.root / "mlflow.db.journal"), NAME)


def look(run: Run) -> State:
    """The registry as it is."""
    os.chdir(run.root)
    model = listing.model(NAME)
    held = {one["version"]: one["lineage"]["quarantine_reason"] for one in model["versions"] if one["state"]}
    return dict(model["aliases"]), held


def go_on(run: Run, killed: str, then: str, committed: bool) -> None:
    """The next verb after a kill, and what it must leave.

    Raises:
        AssertionError: it left something else.
    """
    os.chdir(run.root)
    served = registry.champion(NAME)
    assert served is not None
    assert served.model_folder.is_dir()  # consumers are served at every moment, and each digest is right
    VERBS[then](run)
    end = look(run)
    expected = ENDS[killed, then][committed]
    assert end == expected, f"{then} after a killed {killed}, committed {committed}: {end} instead of {expected}"
    line = None
    for entry in journal(run).entries():
        assert entry.state not in UNFINISHED, entry
        assert entry.before == line, f"entry {entry.number} does not go on from the one before"
        line = entry.champion
    assert line is not None
    assert line.version == end[0]["champion"]
    payloads = [one["lineage"]["payload_digest"] for one in listing.model(NAME)["versions"]]
    assert len(payloads) == len(set(payloads)) <= 2
    if (killed, then) == ("promote", "promote"):
        states = [one.info.status for one in tracking.connect().search_runs(["1"])]
        assert "RUNNING" not in states


@contextmanager
def copied(run: Run) -> Iterator[Run]:
    """A copy of the project, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    try:
        yield copy_run(run, folder)
    finally:
        shutil.rmtree(folder)


def killed_at(run: Run, verb: str, fraction: float, seconds: tuple[float, float], late: bool) -> bool:
    """Run the verb and kill it; False where it had ended by then.

    Args:
        fraction: of its time.
        seconds: how long it takes from the start, and from its entry in the journal.
        late: whether the moment counts from the entry in the journal.
    """
    before = len(journal(run).entries())
    entry = run.root / f"mlflow.db.journal/{NAME}/journal/{before + 1:08d}.json"
    victim = FORK.Process(target=_act, args=(run, verb))
    victim.start()
    while late and not entry.exists() and victim.is_alive():
        time.sleep(0.0005)
    time.sleep(fraction * seconds[late])
    victim.kill()
    victim.join()
    assert victim.exitcode in (0, -signal.SIGKILL), victim.exitcode
    return victim.exitcode != 0


def _act(run: Run, verb: str, write: int | None = None) -> None:
    os.chdir(run.root)
    sys.stdout = sys.stderr
    if write is not None:
        die_after(write, WRITES)
    VERBS[verb](run)


def measure(run: Run, verb: str) -> tuple[float, float]:
    """How long the verb takes from its start, and from its entry in the journal."""
    with copied(run) as mine:
        entry = mine.root / f"mlflow.db.journal/{NAME}/journal/{len(journal(mine).entries()) + 1:08d}.json"
        process = FORK.Process(target=_act, args=(mine, verb))
        started = time.monotonic()
        process.start()
        while not entry.exists():
            time.sleep(0.0005)
        intended = time.monotonic()
        process.join()
        ended = time.monotonic()
    return ended - started, ended - intended


def crash(run: Run, kills: Iterator[tuple[Run, bool]], verb: str) -> dict[str, Any]:
    """After each kill have a verb, each in turn, and look at what it leaves.

    Args:
        kills: the project of each, and whether the process was killed, and not through by then.
    """
    left, tries, done = Counter[str](), 0, 0
    for mine, was_killed in kills:
        tries += 1
        then = list(VERBS)[tries % len(VERBS)]
        entries = journal(mine).entries()[len(journal(run).entries()) :]
        left[entries[-1].state if entries else "no entry"] += was_killed
        in_child(go_on, mine, verb, then, bool(entries) and entries[-1].counts)
        done += was_killed
    return {"kills": done, "tries": tries, "left": dict(left)}


def at_random(run: Run, verb: str, moments: int, seed: int) -> Iterator[tuple[Run, bool]]:
    """Kill at so many random moments: of all its time, and in turn of the time after its entry in the journal.

    A process that had ended by then says that the machine is faster than when it was measured: it is measured again.
    """
    rng, seconds, kills = random.Random(seed), measure(run, verb), 0  # noqa: S311
    for attempt in range(10 * moments):
        if kills == moments:
            return
        with copied(run) as mine:
            killed = killed_at(mine, verb, rng.random(), seconds, late=attempt % 2 == 1)
            kills += killed
            yield mine, killed
        if not killed:
            seconds = measure(run, verb)


def after_each_write(run: Run, verb: str) -> Iterator[tuple[Run, bool]]:
    """Kill after each write in turn, until the verb is through before it could be."""
    for write in range(1, 1000):
        with copied(run) as mine:
            victim = FORK.Process(target=_act, args=(mine, verb, write))
            victim.start()
            victim.join()
            yield mine, victim.exitcode != 0
        if victim.exitcode == 0:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verbs", choices=list(STARTS), nargs="+")
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each-write", choices=list(STARTS), nargs="*", default=[])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    try:
        projects = prepare(folder)
        os.chdir(folder)
        for verb in options.verbs:
            assert in_child(look, projects[verb]) == STARTS[verb]
            if options.moments:
                _tell(projects[verb], verb, "random", at_random(projects[verb], verb, options.moments, options.seed))
            if verb in options.each_write:
                _tell(projects[verb], verb, "each write", after_each_write(projects[verb], verb))
    finally:
        shutil.rmtree(folder)


def _tell(run: Run, verb: str, moments: str, kills: Iterator[tuple[Run, bool]]) -> None:
    started = time.monotonic()
    found = {"verb": verb, "moments": moments, **crash(run, kills, verb)}
    sys.stdout.write(json.dumps(found | {"seconds": round(time.monotonic() - started, 1)}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
