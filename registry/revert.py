"""Rollback: the champion goes back to the version before it, and what it was is quarantined.

It goes through the protocol of a promotion. The alias `previous` is deleted: what was rolled back must not be reached
by it, and a second call then finds no way further back and changes nothing. The next promotion sets it again.
"""

from typing import TYPE_CHECKING, Any

from clinprompt.errors import BadParams, InputMissing
from registry import links, protocol, quarantine, tracking
from registry.consumer import Champion
from registry.protocol.models import ref
from registry.verify import verify
from registry.versions import CHAMPION, PREVIOUS, Version, as_number, by_number

if TYPE_CHECKING:
    from mlflow import MlflowClient


def rollback(
    name: str, reason: str, *, version: int | None = None, to: int | None = None, journal: str | None = None
) -> dict[str, Any]:
    """Quarantine the champion of the registered model `name` and make the version before it the champion.

    Args:
        reason: why, for those who look later.
        version: the champion that is meant. With it, a late second call can't hit a champion that came since.
        to: the version to go back to, instead of the one that carries the alias `previous`.
        journal: `registry.journal` of params.yaml.

    Returns:
        model, action ("rolled_back", or "unchanged" when an earlier call had done it), version (the champion's),
        rolled_back (the quarantined version's) and reason.

    Raises:
        BadParams: no reason or no number is given, or the champion is another version than the one meant.
        InputMissing: there is no champion, or no version to go back to.
        InputCorrupt: the version to go back to does not load.
        DataRejected: a promotion went on at the same time.
        ServiceDown: the MLflow server does not answer.
    """
    reason = quarantine.worded(reason)
    version, to = (None if number is None else as_number(number) for number in (version, to))
    with protocol.opened(name, journal) as turn:
        client = tracking.connect()
        current, previous = turn.champion(), turn.previous()
        if current is None:
            raise InputMissing(f"No version of {name!r} carries the alias {CHAMPION!r} at {tracking.shown_uri()}.")
        earlier = _earlier(client, current, previous, version, to)
        if earlier is not None:
            repeated = earlier.tags.get(quarantine.BY) == links.airflow_run()
            return _result("rolled_back" if repeated else "unchanged", current, earlier)
        if version is not None and version != current.number:
            raise BadParams(
                f"The champion of {name!r} is version {current.number}, not {version}; nothing was rolled back. Look "
                f"at `python -m registry show {name}`."
            )
        target = _target(client, current, previous, to)
        verify(Champion(target))
        if quarantine.is_held(current) and current.tags.get(quarantine.CHAMPION) == str(target.number):
            reason = current.tags.get(quarantine.REASON, reason)  # an earlier call, without a journal, stopped here
        with turn.intend("rollback", current, ref(target), reason=reason) as change:
            change.commit(target, previous=None)
        return _result("rolled_back", target, by_number(client, name, current.number))


def lift(name: str, number: int, reason: str, *, journal: str | None = None) -> dict[str, Any]:
    """Let a version in quarantine be promoted again; the tags keep who lifted it, when and why.

    Args:
        journal: `registry.journal` of params.yaml.

    Raises:
        BadParams: no reason is given, or no number.
        InputMissing: there is no such version.
        ServiceDown: the MLflow server does not answer.
    """
    reason, number = quarantine.worded(reason), as_number(number)
    with protocol.opened(name, journal) as turn:
        version = by_number(tracking.connect(), name, number)
        action = "lifted" if quarantine.is_held(version) else "unchanged"
        if action == "lifted":
            champion, previous = turn.champion(), turn.previous()
            with turn.intend("lift", champion, ref(champion), reason=reason, lifted=number) as change:
                change.commit(champion, previous.number if previous else None)
    return {"model": name, "action": action, "version": number}


def _earlier(
    client: "MlflowClient", current: Version, previous: Version | None, version: int | None, to: int | None
) -> Version | None:
    """The version that this same rollback, asked for again, has taken back before; None when it is a new one."""
    asked_by = links.airflow_run()
    for withdrawn in quarantine.held(client, current.name):
        if withdrawn.number == current.number:
            continue  # stopped before the commit point
        back_here = withdrawn.tags.get(quarantine.CHAMPION) == str(current.number)
        same = version is None and to in (None, current.number) and back_here and previous is None
        same_run = asked_by is not None and withdrawn.tags.get(quarantine.BY) == asked_by
        if same or same_run or version == withdrawn.number:
            return withdrawn
    return None


def _target(client: "MlflowClient", current: Version, previous: Version | None, to: int | None) -> Version:
    if to is None and quarantine.is_held(current) and quarantine.CHAMPION in current.tags:
        to = current.version_in(quarantine.CHAMPION)  # an earlier call stopped before the commit point
    target = by_number(client, current.name, to) if to is not None else previous
    if target is None or target.number == current.number:
        why = f"version {to} is the champion" if to is not None else f"no version carries the alias {PREVIOUS!r}"
        raise InputMissing(
            f"There is no version of {current.name!r} to go back to: {why}. Name one with --to VERSION; "
            f"`python -m registry show {current.name}` lists them."
        )
    if quarantine.is_held(target):
        raise InputMissing(
            f"Version {target.number} of {current.name!r} is quarantined itself; name another with --to VERSION."
        )
    return target


def _result(action: str, champion: Version, back: Version) -> dict[str, Any]:
    return {
        "model": champion.name,
        "action": action,
        "version": champion.number,
        "rolled_back": back.number,
        "reason": back.tags.get(quarantine.REASON, ""),
    }
