"""Many real processes at once at one registered model: promotions and rollbacks, on the registry of the environment.

    PYTHONPATH=. python tests/registry/race.py --processes 32 [--journal s3://bucket/prefix] [--kill 8]
    PYTHONPATH=. python tests/registry/race.py --each-write [--journal s3://bucket/prefix --lease 3 --writes 1 3 5]

The second kills a promotion after each of its writes, or after those with these numbers. Prints one line of JSON: what
the processes were told, and what the journal and the aliases say afterwards. Each process makes its version from one
logged model, so that what is measured is the protocol and MLflow, and not torch.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
from forked import FORK, die_after, in_child

from clinprompt.errors import ClinpromptError, DataRejected, InputMissing
from registry import protocol, quarantine, tracking, versions
from registry.model_folder import FILES_TAG
from registry.protocol import lease
from registry.protocol.folder import FolderStore
from registry.protocol.journal import UNFINISHED, Journal, VersionRef
from registry.protocol.location import address, store_at
from registry.protocol.models import MlflowModels, ref

_OF_MLFLOW: list[tuple[type, str]] = [
    (MlflowModels, "set_alias"), (MlflowModels, "set_tag"), (mlflow.MlflowClient, "create_model_version"),
]  # fmt: skip
WRITES: list[tuple[type, str]] = [(FolderStore, "create"), (FolderStore, "replace"), *_OF_MLFLOW]
# Without the lease's, of which a slow process has more than a fast one.
WRITES_ON_A_SERVER: list[tuple[type, str]] = [(Journal, "begin"), (Journal, "move"), *_OF_MLFLOW]


def model() -> str:
    """The registered model's name."""
    return os.environ.get("RACE_NAME", "race")


def prepare(journal: str | None) -> None:
    """A run to make versions from, and two promotions: version 2 is the champion, 1 the one before."""
    client = tracking.connect()
    experiment = tracking.experiment_id(client, model())
    client.create_run(experiment)
    for payload in ("p1", "p2"):
        promote(payload, journal)


def promote(payload: str, journal: str | None) -> str:
    """Promote a payload by the protocol, by a decision that is made again where it was stale by then."""
    client = tracking.connect()
    for _ in range(3):
        against = versions.by_alias(model(), "champion")
        with suppress(DataRejected), protocol.opened(model(), journal, new=True) as turn:
            current = turn.champion()
            if ref(current) != ref(against):
                raise DataRejected("stale")
            if current is not None and current.tags.get("payload_digest") == payload:
                return "unchanged"
            if any(held.tags.get("payload_digest") == payload for held in quarantine.held(client, model())):
                return "quarantined"
            run = client.search_runs([tracking.experiment_id(client, model())])[0]
            with turn.intend("promote", current, VersionRef(version=None, payload=payload)) as change:
                tags = {"payload_digest": payload, "model_digest": payload, FILES_TAG: "{}"}
                source = f"{run.info.artifact_uri}/model"
                new = versions.find_or_create(client, model(), source, run.info.run_id, tags)
                change.commit(new, current.number if current else None)
            return "promoted"
    return "stale"


def rollback(journal: str | None) -> str:
    """Take the champion back by the protocol, whichever it is; later, where there is none to go back to yet."""
    for _ in range(6):
        with protocol.opened(model(), journal) as turn:
            current, previous = turn.champion(), turn.previous()
            if current is not None and previous is not None and not quarantine.is_held(previous):
                with turn.intend("rollback", current, ref(previous), reason="bad") as change:
                    change.commit(previous, None)
                return "rolled back"
        time.sleep(1)
    return "nothing to go back to"


def _child(number: int, journal: str | None, results: Any, go: Any) -> None:
    go.wait()
    started = time.monotonic()
    try:
        outcome = rollback(journal) if number % 4 == 3 else promote(f"q{number // 2}", journal)
    except ClinpromptError as error:
        outcome = f"{type(error).__name__}: {error}"
    results.put((number, outcome, round(time.monotonic() - started, 1)))


def race(processes: int, journal: str | None, kill: int, seed: int) -> dict[str, Any]:
    """Run all at once, kill some of them at random moments, and look at what is left after one more verb."""
    in_child(prepare, journal)
    results, go, rng = FORK.Queue(), FORK.Event(), random.Random(seed)  # noqa: S311
    children = [FORK.Process(target=_child, args=(n, journal, results, go)) for n in range(processes)]
    for child in children:
        child.start()
    started = time.monotonic()
    go.set()
    killed = 0
    for child in rng.sample(children, kill):
        time.sleep(rng.uniform(0, 1.5))
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
    for child in children:
        child.join()
    seconds = round(time.monotonic() - started, 1)
    outcomes = []
    while True:
        with suppress(Exception):
            outcomes.append(results.get(timeout=0.5))
            continue
        break
    return {
        "processes": processes, "killed": killed, "seconds": seconds,
        "outcomes": dict(Counter(outcome for _, outcome, _ in outcomes)),
        "longest": max((took for _, _, took in outcomes), default=None), **in_child(look, journal),
    }  # fmt: skip


def look(journal: str | None) -> dict[str, Any]:
    """Have a turn, which finishes what was left, and check that all is in one line.

    Raises:
        AssertionError: it is not.
    """
    with suppress(InputMissing), protocol.opened(model(), journal) as turn:
        champion = turn.champion()
    entries = Journal(store_at(address(model(), journal)), model()).entries()
    line, back = None, set()
    for entry in entries:
        assert entry.state not in UNFINISHED, entry
        assert entry.before == line, f"entry {entry.number} does not go on from the one before"
        line = entry.champion
        if entry.counts and entry.operation == "rollback" and entry.before is not None:
            back.add(entry.before.version)
        elif entry.counts and entry.after is not None:
            assert entry.after.version not in back, f"entry {entry.number} promotes what was rolled back"
    assert line == ref(champion), f"the journal's champion is {line}, the alias is at {champion}"
    held = {version.number for version in quarantine.held(tracking.connect(), model())}
    assert held == back, f"quarantined are {held}, rolled back were {back}"
    found = versions.search(tracking.connect(), model(), "tags.payload_digest != ''")
    payloads = Counter(version.tags["payload_digest"] for version in found)
    assert set(payloads.values()) == {1}, f"a payload has two versions: {payloads}"
    counted = Counter(f"{entry.operation} {entry.state}" for entry in entries)
    return {
        "entries": len(entries), "by_state": dict(counted), "champion": line.version if line else None,
        "finished_by_another": sum(entry.finished_by is not None for entry in entries),
        "versions": len(found),
    }  # fmt: skip


def each_write(journal: str | None, writes: Iterable[int]) -> dict[str, Any]:
    """Kill a promotion after each of these writes, each time from the same beginning; promote again, and look.

    A local registry is copied for each; on a server each has a model of its own.
    """
    root, name, ends, kills, states = Path.cwd(), model(), [], 0, Counter[str]()
    local = tracking.local_store() is not None
    if local:
        in_child(prepare, journal)
    for write in writes:
        if local:
            copy = root / f"copy-{write}"
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns("copy-*"))
            os.chdir(copy)
        else:
            os.environ["RACE_NAME"] = f"{name}-{write}"
            in_child(prepare, journal)
        victim = FORK.Process(target=_promote_and_die, args=(write, journal))
        victim.start()
        victim.join()
        states[in_child(_last_state, journal)] += 1
        in_child(promote, "p3", journal)
        end = in_child(_end, journal)
        if end not in ends:
            ends.append(end)
        if victim.exitcode == 0:
            break
        assert victim.exitcode == -signal.SIGKILL, victim.exitcode
        kills += 1
    return {"kills": kills, "ends": ends, "left": dict(states)}


def _end(journal: str | None) -> dict[str, int]:
    look(journal)
    return aliases()


def _last_state(journal: str | None) -> str:
    entries = Journal(store_at(address(model(), journal)), model()).entries()
    return f"{entries[-1].number} {entries[-1].state}"


def aliases() -> dict[str, int]:
    """The model's aliases."""
    registered = tracking.connect().get_registered_model(model())
    return {alias: int(number) for alias, number in registered.aliases.items()}


def _promote_and_die(write: int, journal: str | None) -> None:
    """Promote, and be killed right after the write with this number."""
    store_at(address(model(), journal))  # a server in S3 is tried out with writes, too
    die_after(write, WRITES if tracking.local_store() is not None else WRITES_ON_A_SERVER)
    promote("p3", journal)


def warm_up() -> None:
    """Have MLflow load here, in a registry that is thrown away, what else each process would load by itself."""
    here, address_of = Path.cwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(None)
        look(None)
        os.chdir(here)
    if address_of is not None:
        os.environ["MLFLOW_TRACKING_URI"] = address_of


def shorten_lease(seconds: float) -> None:
    """Turns that last so long after the last sign of life, so that nobody has to wait for that of a dead process."""
    lease.SECONDS, lease.BEAT, lease.ALLOWANCE = seconds, seconds / 4, seconds / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal")
    parser.add_argument("--each-write", action="store_true")
    parser.add_argument("--writes", type=int, nargs="+", help="only after these")
    parser.add_argument("--lease", type=float, help="seconds that a turn lasts")
    options = parser.parse_args()
    if options.lease is not None:
        shorten_lease(options.lease)
    warm_up()
    if options.each_write:
        sys.stdout.write(json.dumps(each_write(options.journal, options.writes or itertools.count(1))) + "\n")
        return
    sys.stdout.write(json.dumps(race(options.processes, options.journal, options.kill, options.seed)) + "\n")


if __name__ == "__main__":
    main()
