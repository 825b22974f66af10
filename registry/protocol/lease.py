"""A lease: the turn of one process at a model's aliases, with a number that rises with each turn."""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clinprompt.errors import ClinpromptError, InputCorrupt, Interrupted, ServiceDown
from clinprompt.files import to_json
from clinprompt.records import RecordPart
from registry.protocol.clock import Clock
from registry.protocol.store import Store

log = logging.getLogger(__name__)

SECONDS = 120.0  # how long a turn lasts after the last sign of life
BEAT = SECONDS / 4
ALLOWANCE = 30.0  # by which two machines' clocks may differ
WAIT = 3600.0  # seconds
_PAUSES = (0.2, 0.5, 1.0, 2.0)


class LeaseLost(Interrupted):
    """This process stood still for so long that another took its turn."""


class LeaseRecord(RecordPart):
    """What the store keeps: of the turn that is, or of the last that was.

    Attributes:
        token: rises by one with each turn. What carries a smaller one was written in an earlier turn.
        holder: who has it; unique to the turn.
        expires: seconds since 1970, UTC; 0 once it was given back.
    """

    token: int
    holder: str
    expires: float


class Lease:
    """A turn that this process has."""

    def __init__(self, store: Store, key: str, record: LeaseRecord, etag: str, clock: Clock) -> None:
        self._store, self._key, self._clock = store, key, clock
        self._record, self._etag = record, etag
        self._write, self._ended = threading.Lock(), threading.Event()

    @property
    def token(self) -> int:
        """The fencing token."""
        return self._record.token

    def renew(self) -> None:
        """Give a sign of life, by which it is also seen that the turn is still this process's.

        Raises:
            LeaseLost: it is another's.
        """
        with self._write:
            record = self._record.model_copy(update={"expires": self._clock.now() + SECONDS})
            etag = self._store.replace(self._key, _bytes(record), self._etag)
            if etag is None:
                raise LeaseLost(
                    f"This process stood still for more than {SECONDS:.0f} s, and another took its turn at "
                    f"{self._key}; nothing was changed. Run it again."
                )
            self._record, self._etag = record, etag

    def give_back(self) -> None:
        """End the turn, so that the next need not wait for it to expire."""
        self._ended.set()
        with self._write, suppress(ClinpromptError):  # else it expires
            self._store.replace(self._key, _bytes(self._record.model_copy(update={"expires": 0.0})), self._etag)

    def beat(self) -> None:
        """Give signs of life until it is given back; for a thread of its own."""
        while not self._ended.wait(BEAT):
            try:
                self.renew()
            except LeaseLost:
                return
            except ClinpromptError as error:
                log.debug("%s", error)


@contextmanager
def held(store: Store, key: str, clock: Clock, *, alone: bool) -> Iterator[Lease]:
    """Wait for the turn and have it.

    Args:
        key: the lease's object.
        alone: no other process can have the turn now (a lock of the operating system says so): what the store tells of
            one is of a process that has died.

    Raises:
        ServiceDown: another process does not end its turn.
    """
    lease = _taken(store, key, clock, alone)
    if clock.beats and not alone:
        threading.Thread(target=lease.beat, name="lease", daemon=True).start()
    try:
        yield lease
    finally:
        lease.give_back()


def _taken(store: Store, key: str, clock: Clock, alone: bool) -> Lease:
    holder = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
    started, attempt = clock.now(), 0
    while True:
        found = store.read(key)
        now = clock.now()
        before = _parsed(key, found.content) if found is not None else None
        if before is None or alone or now > before.expires + (ALLOWANCE if before.expires else 0):
            token = before.token + 1 if before is not None else 1
            record = LeaseRecord(token=token, holder=holder, expires=now + SECONDS)
            content = _bytes(record)
            etag = store.create(key, content) if found is None else store.replace(key, content, found.etag)
            if etag is not None:
                return Lease(store, key, record, etag, clock)
        elif now - started > WAIT:
            raise ServiceDown(
                f"Another promotion or rollback ({before.holder}) has had its turn at {key} for more than "
                f"{WAIT / 60:.0f} minutes. Look whether it runs, and try again."
            )
        elif attempt == 0:
            log.info("waiting for the turn of %s at %s to end.", before.holder, key)
        clock.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        attempt += 1


def _bytes(record: LeaseRecord) -> bytes:
    return to_json(record.model_dump()).encode()


def _parsed(key: str, content: bytes) -> LeaseRecord:
    try:
        return LeaseRecord.model_validate_json(content)
    except ValueError:
        raise InputCorrupt(f"{key} in the registry's journal is no lease; somebody has changed it.") from None
