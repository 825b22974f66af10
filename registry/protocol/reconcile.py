"""What has the turn does first: finish or undo what an earlier turn has left, and bring the aliases to the journal.

MLflow can't refuse a write of a process whose turn is over. Such a write is known by the entry that it belongs to,
which another turn finished, and is set right here.
"""

import logging

from registry import links, quarantine
from registry.model_folder import FILES_TAG
from registry.protocol.apply import carry_out, set_tags
from registry.protocol.journal import UNFINISHED, Entry, VersionRef, Written
from registry.protocol.models import ref
from registry.protocol.turn import Turn
from registry.versions import CHAMPION, PREVIOUS, Version

log = logging.getLogger(__name__)


def reconcile(turn: Turn) -> None:
    """Leave a journal whose last entry is finished, and aliases that are what it says.

    Raises:
        Fenced, LeaseLost: the turn was taken over meanwhile.
        ServiceDown: the journal's store or MLflow does not answer.
    """
    turn.head = turn.journal.head()
    if turn.head is not None and turn.head.entry.state in UNFINISHED:
        turn.head = _finish(turn, turn.head)
    _set_right(turn)


def _finish(turn: Turn, left: Written) -> Written:
    """Close the entry of a process that ended, or stood still, in between."""
    token, number = turn.lease.token, left.entry.number
    # Before anything is done: from here on the entry's own process can change nothing in the journal.
    mine = turn.journal.move(left, token=token)
    if left.entry.state == "intended":
        log.info("entry %d of the journal of %r was not committed; it is undone.", number, turn.models.name)
        return turn.journal.move(mine, state="undone", finished_by=token, outcome="its process ended before the commit")
    log.info("entry %d of the journal of %r was committed; it is carried out.", number, turn.models.name)
    gone = _missing(turn, mine.entry)
    if gone is not None:
        set_tags(turn.models, mine.entry, absent=gone)
        outcome = f"version {gone} was deleted before it was carried out"
        return turn.journal.move(mine, state="done", finished_by=token, outcome=outcome)
    carry_out(turn.models, mine.entry)
    return turn.journal.move(mine, state="done", finished_by=token)


def _missing(turn: Turn, entry: Entry) -> int | None:
    """A version that the entry needs and that MLflow does not have any more."""
    refs = [entry.after, entry.before if entry.operation == "rollback" else None]
    numbers = [one.version for one in refs if one is not None] + [entry.lifted, entry.previous]
    for number in numbers:
        if number is not None and turn.models.by_number(number) is None:
            return number
    return None


def _set_right(turn: Turn) -> None:
    """Bring the aliases to the journal, or the journal to an alias that people have moved past it."""
    head, found = turn.head.entry if turn.head is not None else None, turn.models.by_alias(CHAMPION)
    truth = head.champion if head is not None else None
    if truth != ref(found):
        if _can_serve(turn, truth) and (_is_late(turn, CHAMPION, found) or _is_lost(found)):
            _restore(turn, truth)
        else:
            _adopt(turn, truth, found)
        return
    previous = turn.models.by_alias(PREVIOUS)
    if head is not None and (previous.number if previous is not None else None) != head.previous:
        there = head.previous is None or turn.models.by_number(head.previous) is not None
        if there and _is_late(turn, PREVIOUS, previous):
            _restore(turn, truth)


def _restore(turn: Turn, truth: VersionRef | None) -> None:
    """Set the aliases to what the journal says; by an entry, since this process, too, may come too late with it."""
    previous = turn.head.entry.previous if turn.head is not None else None
    there = previous is None or turn.models.by_number(previous) is not None
    log.warning("the aliases of %r were not what the journal says; they are set right.", turn.models.name)
    written = turn.journal.begin(
        turn.head, token=turn.lease.token, operation="restore", by=links.requester(), at=turn.time(), before=truth,
        after=truth, previous=previous if there else None, state="committed", committed_at=turn.time(),
    )  # fmt: skip
    carry_out(turn.models, written.entry)
    turn.head = turn.journal.move(written, state="done")


def _is_late(turn: Turn, alias: str, found: Version | None) -> bool:
    """Whether an alias is as a process set it whose turn was over: its entry was finished by another."""
    number = found.number if found is not None else None
    for entry in turn.journal.entries():
        if entry.finished_by is not None and entry.state == "done" and entry.operation != "lift":
            target = entry.after.version if entry.after is not None else None
            if (target if alias == CHAMPION else entry.previous) == number:
                return True
    return False


def _is_lost(found: Version | None) -> bool:
    """Whether the champion's alias is gone, or is at a version in quarantine."""
    return found is None or quarantine.is_held(found)


def _can_serve(turn: Turn, truth: VersionRef | None) -> bool:
    """Whether the journal's champion is there, can be verified, and is not in quarantine."""
    if truth is None or truth.version is None or truth.payload is None:
        return False
    champion = turn.models.by_number(truth.version)
    if champion is None or ref(champion) != truth or quarantine.is_held(champion):
        return False
    return FILES_TAG in champion.tags


def _adopt(turn: Turn, truth: VersionRef | None, found: Version | None) -> None:
    if turn.head is not None:
        log.warning(
            "the alias %s of %r was moved past the journal, from version %s to %s; the journal follows it.",
            CHAMPION, turn.models.name, truth.version if truth else None, found.number if found else None,
        )  # fmt: skip
    previous = turn.models.by_alias(PREVIOUS)
    turn.head = turn.journal.begin(
        turn.head, token=turn.lease.token, operation="adopt", by=links.requester(), at=turn.time(), before=truth,
        after=ref(found), previous=previous.number if previous else None, state="done",
        outcome="the alias was set without the journal",
    )  # fmt: skip
