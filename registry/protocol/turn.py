"""A turn at a model's aliases: look at the champion, intend a change, commit it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clinprompt.errors import ClinpromptError
from registry import links
from registry.protocol.apply import carry_out
from registry.protocol.clock import Clock
from registry.protocol.journal import Entry, Fenced, Journal, Operation, Overtaken, VersionRef, Written
from registry.protocol.lease import Lease, LeaseLost
from registry.protocol.models import Models, ref
from registry.versions import CHAMPION, PREVIOUS, Version

_TRIES = 5


@dataclass
class Turn:
    """This process's turn; the journal's last entry is finished, and the aliases are what it says.

    Attributes:
        again: opens a further turn at the same model, which first finishes what this one has left.
        head: the journal's last entry.
    """

    models: Models
    journal: Journal
    lease: Lease
    clock: Clock
    again: Callable[[], AbstractContextManager["Turn"]]
    head: Written | None = None

    def champion(self) -> Version | None:
        """The version that carries the alias `champion`."""
        return self.models.by_alias(CHAMPION)

    def previous(self) -> Version | None:
        """The version that carries the alias `previous`."""
        return self.models.by_alias(PREVIOUS)

    @contextmanager
    def intend(
        self, operation: Operation, before: Version | None, after: VersionRef | None, **facts: Any
    ) -> Iterator["Change"]:
        """Write the intent of a change; unless it is committed in the `with` block, it is undone after it.

        Args:
            before: the champion that the change was thought out for.
            after: the champion that it ends with; its version may still be unknown.
            facts: more of the entry.

        Raises:
            Overtaken: the champion is another by now.
        """
        if (self.head.entry.champion if self.head is not None else None) != ref(before):
            raise Overtaken(self.models.name)
        self.lease.renew()
        previous = self.previous()
        written = self.journal.begin(
            self.head, token=self.lease.token, operation=operation, by=links.requester(), at=self.time(),
            before=ref(before), after=after, previous=previous.number if previous else None, state="intended", **facts,
        )  # fmt: skip
        change = Change(self, written)
        try:
            yield change
        except Exception as error:
            with suppress(ClinpromptError):  # then the next turn undoes it
                change.undo(type(error).__name__)
            raise
        change.undo("nothing was committed")

    def time(self) -> str:
        """Now, in UTC, as the journal and the tags write it."""
        return datetime.fromtimestamp(self.clock.now(), UTC).isoformat(timespec="seconds")


class Change:
    """A change that is intended, and that can be committed once."""

    def __init__(self, turn: Turn, written: Written) -> None:
        self._turn, self._written = turn, written

    @property
    def entry(self) -> Entry:
        """Its entry in the journal."""
        return self._written.entry

    def commit(self, after: Version | None, previous: int | None) -> None:
        """The point from which the change holds: write it into the journal, carry it out, and read it back.

        Args:
            after: the champion from now on.
            previous: the version that carries the alias `previous` from now on.

        Where another process took the turn after the commit, it has carried the change out, and may have followed it
        with one of its own: look at the champion.

        Raises:
            Overtaken: the champion is not the one any more that the change was thought out for.
            LeaseLost, Fenced: another process has had the turn since; nothing was committed.
        """
        turn = self._turn
        if ref(turn.champion()) not in (self.entry.before, ref(after)):  # the same may have been done without a journal
            raise Overtaken(turn.models.name)
        turn.lease.renew()
        self._written = turn.journal.move(
            self._written, state="committed", after=ref(after), previous=previous, committed_at=turn.time()
        )
        try:
            turn.lease.renew()
            carry_out(turn.models, self.entry)
            self._written = turn.head = turn.journal.move(self._written, state="done")
        except (Fenced, LeaseLost):
            self._look_again()
        except Overtaken:
            try:
                turn.lease.renew()
            except LeaseLost:
                self._look_again()
            else:
                raise

    def undo(self, why: str) -> None:
        """Close an intent that came to nothing; one that is committed stays."""
        if self.entry.state == "intended":
            self._written = self._turn.head = self._turn.journal.move(self._written, state="undone", outcome=why)

    def _look_again(self) -> None:
        """Another process took this one for dead and finished its change: what this one wrote since may be too late."""
        for _ in range(_TRIES):
            # Where this one loses the further turn as well, another has it and sets right what there is.
            with suppress(Fenced, LeaseLost, Overtaken), self._turn.again():
                return
