"""Processes in simulation: each stands still at every step of the protocol until the scheduler lets it take the next.

A step is one call of the store or of MLflow. The protocol is the real one; only MLflow's aliases, versions and tags are
a dictionary.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinprompt.errors import ClinpromptError, DataRejected, InputMissing, Interrupted
from registry import quarantine
from registry.model_folder import FILES_TAG
from registry.protocol.journal import Journal, Overtaken, VersionRef
from registry.protocol.lease import ALLOWANCE, SECONDS
from registry.protocol.memory import MemoryStore
from registry.protocol.models import ref
from registry.protocol.opened import turn_at
from registry.versions import Version

NAME = "tiny"


class Crash(BaseException):
    """A process that dies: nothing may catch it."""


@dataclass
class World:
    """What all processes share: the journal's store, MLflow, and the time."""

    store: Any = field(default_factory=MemoryStore)
    aliases: dict[str, int] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    time: float = 1e9

    @property
    def journal(self) -> Journal:
        return Journal(self.store, NAME)

    def state(self) -> tuple[dict[str, int], list[bool], list[tuple[str, str]]]:
        """Aliases, which versions are in quarantine, and operations and states in the journal."""
        held = [quarantine.is_held(version) for version in self.versions]
        return dict(self.aliases), held, [(entry.operation, entry.state) for entry in self.journal.entries()]


class Process:
    """One process's view of the world; `step` is called before each of its calls, `after` once it is carried out."""

    beats = False

    def __init__(self, world: World, step: Callable[[str], None], after: Callable[[str], None] = lambda name: None):
        self.world, self.name, self._step, self._after = world, NAME, step, after

    def _do(self, name: str, action: Callable[[], Any]) -> Any:
        self._step(name)
        result = action()
        self._after(name)
        return result

    # The clock.
    def now(self) -> float:
        return self.world.time

    def sleep(self, seconds: float) -> None:
        self._step("sleep")
        self.world.time += seconds

    # The store.
    def read(self, key: str) -> Any:
        return self._do("read", lambda: self.world.store.read(key))

    def create(self, key: str, content: bytes) -> Any:
        return self._do("create", lambda: self.world.store.create(key, content))

    def replace(self, key: str, content: bytes, etag: str) -> Any:
        return self._do("replace", lambda: self.world.store.replace(key, content, etag))

    def list(self, prefix: str) -> Any:
        return self._do("list", lambda: self.world.store.list(prefix))

    # MLflow.
    def by_alias(self, alias: str) -> Version | None:
        return self._do("by_alias", lambda: self._found(self.world.aliases.get(alias)))  # type: ignore[no-any-return]

    def by_number(self, number: int) -> Version | None:
        return self._do("by_number", lambda: self._found(number))  # type: ignore[no-any-return]

    def set_alias(self, alias: str, number: int) -> None:
        self._do("set_alias", lambda: self.world.aliases.update({alias: number}))

    def delete_alias(self, alias: str) -> None:
        self._do("delete_alias", lambda: self.world.aliases.pop(alias, None))

    def set_tag(self, number: int, key: str, value: str) -> None:
        self._do("set_tag", lambda: self.world.versions[number - 1].tags.update({key: value}))

    def find_or_create(self, payload: str) -> Version:
        def act() -> Version:
            found = [version for version in self.world.versions if version.tags["payload_digest"] == payload]
            if not found:
                tags = {"payload_digest": payload, FILES_TAG: "{}"}
                self.world.versions.append(Version(NAME, len(self.world.versions) + 1, tags))
            return found[0] if found else self.world.versions[-1]

        return self._do("find_or_create", act)  # type: ignore[no-any-return]

    def _found(self, number: int | None) -> Version | None:
        known = self.world.versions
        if number is None or number > len(known):
            return None
        return Version(NAME, number, dict(known[number - 1].tags))

    # The verbs, as registry.promote and registry.revert have them, without the packing.
    def look(self) -> None:
        """Have a turn, and do nothing with it."""
        with turn_at(self, self, self):
            pass

    def promote(self, payload: str, against: int | None) -> str:
        """Promote a payload by a decision that was made against a version."""
        with turn_at(self, self, self) as turn:
            current = turn.champion()
            if current is not None and current.tags["payload_digest"] == payload:
                return "unchanged"
            if any(quarantine.is_held(v) and v.tags["payload_digest"] == payload for v in self.world.versions):
                return "quarantined"
            if (current.number if current else None) != against:
                raise DataRejected("stale")
            with turn.intend("promote", current, VersionRef(version=None, payload=payload)) as change:
                new = self.find_or_create(payload)
                change.commit(new, current.number if current else None)
            champion = turn.champion()
        if champion is None or champion.number != new.number:
            raise Overtaken(NAME)
        return "promoted"

    def decide_and_promote(self, payload: str) -> str:
        """Look at the champion, decide, promote; and again where the decision was stale by then."""
        for _ in range(6):
            champion = self.by_alias("champion")
            try:
                return self.promote(payload, champion.number if champion else None)
            except ClinpromptError:
                continue
        return "gave up"

    def insist_on_rollback(self) -> int:
        """Take the champion back, and again where the turn was lost before it was done."""
        for _ in range(10):
            try:
                return self.rollback()
            except (Interrupted, Overtaken):
                continue
        raise AssertionError("the rollback never got through")

    def rollback(self) -> int:
        """Take the champion back, whichever it is; its number."""
        with turn_at(self, self, self) as turn:
            current, previous = turn.champion(), turn.previous()
            if current is None or previous is None or quarantine.is_held(self.world.versions[previous.number - 1]):
                raise InputMissing("nothing to go back to")
            with turn.intend("rollback", current, ref(previous), reason="bad") as change:
                change.commit(previous, None)
        return current.number


def at_rest() -> World:
    """Two promotions have been: version 2 is the champion, 1 the one before."""
    world = World()
    first = Process(world, lambda name: None)
    first.promote("p1", None)
    first.promote("p2", 1)
    return world


class Scheduler:
    """Runs processes in an order that a seed decides: some steps of one, then of another.

    Args:
        stay: the probability that the next step is the same process's.
        jumps: the probability, where it is another's, that the one before stands still for so long that its turn ends.
    """

    def __init__(self, world: World, seed: int, stay: float = 0.9, jumps: float = 0.1) -> None:
        self.world, self._rng, self._stay, self._jumps = world, np.random.default_rng(seed), stay, jumps
        self._names = threading.local()
        self._go: dict[str, threading.Event] = {}
        self._stopped: dict[str, threading.Event] = {}
        self._alive: list[str] = []
        self.outcomes: dict[str, Any] = {}
        self.steps = 0

    def run(self, processes: dict[str, Callable[[Process], Any]]) -> None:
        """Run all to their ends."""
        threads = [threading.Thread(target=self._main, args=item, daemon=True) for item in processes.items()]
        for name in processes:
            self._go[name], self._stopped[name] = threading.Event(), threading.Event()
        self._alive = list(processes)
        for thread in threads:
            thread.start()
        name = ""
        while self._alive:
            if name not in self._alive or self._rng.random() > self._stay:
                name = self._alive[self._rng.integers(len(self._alive))]
                if self._rng.random() < self._jumps:
                    self.world.time += SECONDS + ALLOWANCE + 1
            self.steps += 1
            assert self.steps < 20_000, "they wait for each other"
            self._stopped[name].clear()
            self._go[name].set()
            self._stopped[name].wait()
        for thread in threads:
            thread.join()

    def _main(self, name: str, action: Callable[[Process], Any]) -> None:
        self._names.name = name
        self._pause()
        try:
            self.outcomes[name] = action(Process(self.world, lambda step: self._stand(name)))
        except ClinpromptError as error:
            self.outcomes[name] = error
        except BaseException as error:
            self.outcomes[name] = error
        self._alive.remove(name)
        self._stopped[name].set()

    def _stand(self, name: str) -> None:
        self._stopped[name].set()
        self._pause()

    def _pause(self) -> None:
        name = self._names.name
        self._go[name].wait()
        self._go[name].clear()
