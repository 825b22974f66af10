"""The journal of a registered model: every change of its aliases, numbered without a gap, each in an object of its own.

An entry is created on the condition that there is none with its number, and changed on the condition that nobody else
has changed it: the entries are one line, whoever writes.
"""

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from clinprompt.errors import DataRejected, InputCorrupt, Interrupted
from clinprompt.files import to_json
from clinprompt.records import RecordPart
from registry.protocol.store import Store

FORMAT = 1
Operation = Literal["promote", "rollback", "lift", "restore", "adopt"]
State = Literal["intended", "committed", "done", "undone"]
UNFINISHED: tuple[State, ...] = ("intended", "committed")


class Overtaken(DataRejected):
    """Another process has changed the champion since this one looked."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Another promotion of {name!r} went on at the same time; run `dvc repro` again.")


class Fenced(Interrupted):
    """The entry was taken over by a process with a later turn."""


class VersionRef(RecordPart):
    """A production version.

    Attributes:
        version: its number; None before it is registered.
        payload: its payload's digest; None of a version that this pipeline has not made.
    """

    version: int | None
    payload: str | None


class Entry(RecordPart):
    """A change of the aliases `champion` and `previous`, or of a quarantine.

    Attributes:
        id: of the attempt; unique.
        token: of the turn in which it was last written.
        operation: `restore` sets the aliases to what the journal says; `adopt` says that someone has moved one past the
            protocol, which the journal follows.
        by, at: who asked, and when (UTC) it was intended.
        before, after: the champion; `after` has no version until it is committed.
        previous: the version that carries the alias `previous`: before the commit, and from then on afterwards.
        state: `intended` has changed nothing that consumers see, and is undone when its process ends; `committed` is
            carried out whatever happens; `done` has been read back.
        reason: a person's.
        lifted: the version that leaves the quarantine.
        committed_at: UTC.
        outcome: why it was undone, or how it ended otherwise than by its own process.
        finished_by: the token of the turn that finished it, where it was not its own: its own process may still come
            with a write that is too late.
    """

    number: int
    id: str
    token: int
    operation: Operation
    by: str
    at: str
    before: VersionRef | None
    after: VersionRef | None
    previous: int | None
    state: State
    reason: str = ""
    lifted: int | None = None
    committed_at: str | None = None
    outcome: str = ""
    finished_by: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it is a change: committed, or carried out."""
        return self.state in ("committed", "done")

    @property
    def champion(self) -> VersionRef | None:
        """The champion once the entry is finished."""
        return self.after if self.counts else self.before


@dataclass(frozen=True)
class Written:
    """An entry as the store has it."""

    entry: Entry
    etag: str


class Journal:
    """The journal of the registered model `name`."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self.name = store, name
        self._folder = f"{name}/journal/"

    @property
    def lease_key(self) -> str:
        """The object of the lease under which it is written."""
        return f"{self.name}/lease.json"

    def entries(self) -> list[Entry]:
        """All entries, oldest first.

        Raises:
            InputCorrupt: one is missing, or is no entry.
        """
        found = [self._read(key).entry for key in self._keys()]
        for place, entry in enumerate(found, 1):
            if entry.number != place:
                raise InputCorrupt(f"The journal of {self.name!r} has no entry {place}; put its back-up in its place.")
        return found

    def head(self) -> Written | None:
        """The last entry."""
        keys = self._keys()
        return self._read(keys[-1]) if keys else None

    def begin(self, head: Written | None, **facts: Any) -> Written:
        """Write the entry after `head`.

        Raises:
            Overtaken: another process has written one.
        """
        number = head.entry.number + 1 if head is not None else 1
        entry = Entry(number=number, id=uuid.uuid4().hex, **facts)
        etag = self._store.create(self._key(number), _bytes(entry))
        if etag is None:
            raise Overtaken(self.name)
        return Written(entry, etag)

    def move(self, written: Written, **changes: Any) -> Written:
        """Change an entry.

        Raises:
            Fenced: another process has changed it since.
        """
        entry = Entry.model_validate(written.entry.model_dump() | changes)
        etag = self._store.replace(self._key(entry.number), _bytes(entry), written.etag)
        if etag is None:
            raise Fenced(
                f"Another process took the turn of this one at {self.name!r} and finished or undid entry "
                f"{entry.number} of its journal. Run it again."
            )
        return Written(entry, etag)

    def _keys(self) -> list[str]:
        return self._store.list(self._folder)

    def _key(self, number: int) -> str:
        return f"{self._folder}{number:08d}.json"

    def _read(self, key: str) -> Written:
        found = self._store.read(key)
        try:
            if found is None:
                raise ValueError
            return Written(_parsed(found.content), found.etag)
        except (ValueError, RecursionError):
            raise InputCorrupt(
                f"{key} is no entry of a registry's journal that this release reads; put its back-up in its place."
            ) from None


def _bytes(entry: Entry) -> bytes:
    return to_json({"format": FORMAT, **entry.model_dump()}).encode()


def _parsed(content: bytes) -> Entry:
    import json

    value = json.loads(content)
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise ValueError("another format")
    try:
        return Entry.model_validate(value)
    except ValidationError as error:
        raise ValueError(str(error)) from None
