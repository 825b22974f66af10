"""What of a decision's record does not follow from the predictions that it rests on. Imports nothing heavy."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clinprompt.evaluation.budget import HeldOut
    from clinprompt.evaluation.decision import DecisionRecord, RecordedCheck

# Two machines may round a champion's probabilities differently, and few images then change their place.
_ROUNDING = 0.005


def contradiction(record: "DecisionRecord", now: "DecisionRecord") -> str | None:
    """What of a record does not follow from the predictions; None when all does.

    Args:
        now: a decision on the same files and params, made just now beside the record's champion, or beside none. The
            comparison with the champion of another day can't be repeated without it; it must at least follow from its
            own numbers.
    """
    return next(_contradictions(record, now), None)


def _contradictions(record: "DecisionRecord", now: "DecisionRecord") -> Iterator[str]:
    if record.dataset != now.dataset:
        yield f"it is one on {record.dataset!r}"
    measured = {candidate.name: candidate for candidate in now.candidates}
    for candidate in record.candidates:
        if candidate != measured.pop(candidate.name, None):
            yield f"it tells of {candidate.name} what its predictions don't give"
    for name in measured:
        yield f"{name} is missing in it"
    if record.held_out != now.held_out:
        yield f"it takes itself for {_nth(record.held_out)}, and the registry counts {_nth(now.held_out)}"
    yield from _about_the_choice(record, now)
    if record.required != now.required or not _checks_follow(record, now):
        yield "its checks are not those of the predictions"
    if record.champion is None and (any(check.beside for check in record.checks) or record.cross_checks):
        yield "it compares with a champion that it does not name"
    if record.reasons != _reasons(record, now):
        yield "its reasons are not those of the predictions"


def _about_the_choice(record: "DecisionRecord", now: "DecisionRecord") -> Iterator[str]:
    if record.accepted != (record.chosen is not None):
        yield "its verdict and its choice disagree"
    beaten = {check.candidate for check in record.checks if not check.passed and check.beside is not None}
    if record.chosen is None:
        if now.chosen is not None and now.chosen.folder not in beaten:
            yield f"it rejects {now.chosen.folder}, which the predictions give"
    elif record.chosen != now.chosen:
        given = now.chosen.folder if now.chosen else "none"
        yield f"it chooses {record.chosen.folder}, the predictions give {given} ({'; '.join(now.reasons)})"
    if record.champion == now.champion and record.verdict != now.verdict:
        yield f"its verdict is {record.verdict}, the predictions give {now.verdict} ({'; '.join(now.reasons)})"


def _checks_follow(record: "DecisionRecord", now: "DecisionRecord") -> bool:
    """Whether its checks are those of `now`: all of them beside the same champion, else those of the run's files."""
    if not all(check.is_consistent for check in record.checks):
        return False
    if record.champion is None or record.champion != now.champion:
        mine, theirs = ([check for check in one.checks if check.beside is None] for one in (record, now))
        return mine == theirs
    if record.checks == now.checks:
        return record.cross_checks == now.cross_checks
    return len(record.checks) == len(now.checks) and all(map(_same, record.checks, now.checks))


def _same(recorded: "RecordedCheck", now: "RecordedCheck") -> bool:
    """Whether a check is the same but for how two machines round what the champion predicts."""
    mine, theirs = ((check.value, check.low, check.high) for check in (recorded, now))
    if recorded.beside is None or mine == theirs:
        return recorded == now
    close = all(a is not None and b is not None and abs(a - b) <= _ROUNDING for a, b in zip(mine, theirs, strict=True))
    told = [
        (check.rule, check.name, check.candidate, check.bound, check.side, check.passed, check.beside)
        for check in (recorded, now)
    ]
    words = [re.sub(r"\d[\d.,]*", "#", check.says) for check in (recorded, now)]
    return close and told[0] == told[1] and words[0] == words[1]


def _reasons(record: "DecisionRecord", now: "DecisionRecord") -> list[str]:
    """What the record's own checks say, and what `now` says beside its checks."""
    failed = [check for check in record.checks if not check.passed]
    if not failed and not record.accepted:
        return now.reasons
    beside = now.reasons[1 + len(now.checks) :]
    if not now.accepted:
        beside = now.reasons[sum(not check.passed for check in now.checks) :]
    if record.accepted:
        return [now.reasons[0], *(check.says for check in record.checks), *beside]
    return [*(f"{check.candidate}: {check.says}" for check in failed), *beside]


def _nth(held_out: "HeldOut | None") -> str:
    if held_out is None:
        return "no decision on its test split"
    return f"decision {held_out.number or 'none'} on its test split, at alpha {held_out.alpha:.3g}"
