"""Many real processes at once at one registered model: promotions and rollbacks, on the registry of the environment.

    PYTHONPATH=. python tests/registry/race.py --processes 32 [--journal s3://bucket/prefix] [--kill 8]

Prints one line of JSON: what the processes were told, and what the journal and the aliases say afterwards. Each process
makes its version from one logged model, so that what is measured is the protocol and MLflow, and not torch.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.context import ForkContext
from pathlib import Path
from typing import Any

import mlflow
from mlflow.store.tracking import sqlalchemy_store as _preloaded  # noqa: F401 - before the processes fork

from clinprompt.errors import ClinpromptError, DataRejected, InputMissing
from registry import protocol, quarantine, tracking, versions
from registry.model_folder import FILES_TAG
from registry.protocol.folder import FolderStore
from registry.protocol.journal import UNFINISHED, Journal, VersionRef
from registry.protocol.location import address, store_at
from registry.protocol.models import MlflowModels, ref

NAME = os.environ.get("RACE_NAME", "race")
FORK: ForkContext = multiprocessing.get_context("fork")  # after the imports, which take seconds


def prepare(journal: str | None) -> None:
    """A run to make versions from, and two promotions: version 2 is the champion, 1 the one before."""
    client = tracking.connect()
    experiment = tracking.experiment_id(client, NAME)
    client.create_run(experiment)
    for payload in ("p1", "p2"):
        promote(payload, journal)


def promote(payload: str, journal: str | None) -> str:
    """Promote a payload by the protocol, by a decision that is made again where it was stale by then."""
    client = tracking.connect()
    for _ in range(3):
        against = versions.by_alias(NAME, "champion")
        with suppress(DataRejected), protocol.opened(NAME, journal) as turn:
            current = turn.champion()
            if ref(current) != ref(against):
                raise DataRejected("stale")
            if current is not None and current.tags.get("payload_digest") == payload:
                return "unchanged"
            if any(held.tags.get("payload_digest") == payload for held in quarantine.held(client, NAME)):
                return "quarantined"
            run = client.search_runs([tracking.experiment_id(client, NAME)])[0]
            with turn.intend("promote", current, VersionRef(version=None, payload=payload)) as change:
                tags = {"payload_digest": payload, "model_digest": payload, FILES_TAG: "{}"}
                source = f"{run.info.artifact_uri}/model"
                new = versions.find_or_create(client, NAME, source, run.info.run_id, tags)
                change.commit(new, current.number if current else None)
            return "promoted"
    return "stale"


def rollback(journal: str | None) -> str:
    """Take the champion back by the protocol, whichever it is; later, where there is none to go back to yet."""
    for _ in range(6):
        with protocol.opened(NAME, journal) as turn:
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


def _in_child(action: Callable[..., Any], *args: Any) -> None:
    """Run in a process of its own: MLflow's connections must not be inherited by the ones forked next."""
    process = FORK.Process(target=action, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{action.__name__} ended with {process.exitcode}"


def race(processes: int, journal: str | None, kill: int, seed: int) -> dict[str, Any]:
    """Run all at once, kill some of them at random moments, and look at what is left after one more verb."""
    _in_child(prepare, journal)
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
    report = FORK.Queue()
    _in_child(lambda: report.put(look(journal)))
    return {
        "processes": processes, "killed": killed, "seconds": seconds,
        "outcomes": dict(Counter(outcome for _, outcome, _ in outcomes)),
        "longest": max((took for _, _, took in outcomes), default=None), **report.get(),
    }  # fmt: skip


def look(journal: str | None) -> dict[str, Any]:
    """Have a turn, which finishes what was left, and check that all is in one line.

    Raises:
        AssertionError: it is not.
    """
    with suppress(InputMissing), protocol.opened(NAME, journal) as turn:
        champion = turn.champion()
    entries = Journal(store_at(address(NAME, journal)), NAME).entries()
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
    held = {version.number for version in quarantine.held(tracking.connect(), NAME)}
    assert held == back, f"quarantined are {held}, rolled back were {back}"
    found = versions.search(tracking.connect(), NAME, "tags.payload_digest != ''")
    payloads = Counter(version.tags["payload_digest"] for version in found)
    assert set(payloads.values()) == {1}, f"a payload has two versions: {payloads}"
    counted = Counter(f"{entry.operation} {entry.state}" for entry in entries)
    return {
        "entries": len(entries), "by_state": dict(counted), "champion": line.version if line else None,
        "finished_by_another": sum(entry.finished_by is not None for entry in entries),
        "versions": len(found),
    }  # fmt: skip


def each_write(journal: str | None) -> dict[str, Any]:
    """Kill a promotion after each of its writes in turn, on a copy of the registry; promote again, and look."""
    _in_child(prepare, journal)
    root, kills, ends = Path.cwd(), 0, []
    while True:
        copy = root / f"copy-{kills}"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns("copy-*"))
        os.chdir(copy)
        victim = FORK.Process(target=_promote_and_die, args=(kills + 1, journal))
        victim.start()
        victim.join()
        _in_child(promote, "p3", journal)
        report = FORK.Queue()
        _in_child(lambda report=report: report.put((look(journal), aliases())))
        end = report.get()[1]
        if end not in ends:
            ends.append(end)
        if victim.exitcode == 0:
            return {"kills": kills, "ends": ends}
        assert victim.exitcode == -signal.SIGKILL, victim.exitcode
        kills += 1


def aliases() -> dict[str, int]:
    """The model's aliases."""
    registered = tracking.connect().get_registered_model(NAME)
    return {alias: int(number) for alias, number in registered.aliases.items()}


def _promote_and_die(write: int, journal: str | None) -> None:
    """Promote, and be killed right after the write with this number."""
    count = itertools.count(1)
    for owner, name in (
        (FolderStore, "create"), (FolderStore, "replace"), (MlflowModels, "set_alias"), (MlflowModels, "set_tag"),
        (mlflow.MlflowClient, "create_model_version"),
    ):  # fmt: skip
        setattr(owner, name, _deadly(getattr(owner, name), count, write))
    promote("p3", journal)


def _deadly(action: Callable[..., Any], count: Iterator[int], last: int) -> Callable[..., Any]:
    def act(*args: Any, **kwargs: Any) -> Any:
        result = action(*args, **kwargs)
        if next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return act


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal")
    parser.add_argument("--each-write", action="store_true")
    options = parser.parse_args()
    if options.each_write:
        sys.stdout.write(json.dumps(each_write(options.journal)) + "\n")
        return
    sys.stdout.write(json.dumps(race(options.processes, options.journal, options.kill, options.seed)) + "\n")


if __name__ == "__main__":
    main()
