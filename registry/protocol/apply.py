"""Carry out a committed entry: tags first, then the alias `previous`, then `champion`, which consumers read.

Each step sets what the entry says, so that it can be repeated from any point, by whoever has the turn.
"""

from registry import quarantine
from registry.protocol.journal import Entry, Overtaken
from registry.protocol.models import Models
from registry.versions import CHAMPION, PREVIOUS, PROMOTED


def carry_out(models: Models, entry: Entry) -> None:
    """Bring aliases and tags to what a committed entry says, and read the champion back.

    Raises:
        Overtaken: someone moved the alias in the same moment.
        ServiceDown: MLflow does not answer.
    """
    set_tags(models, entry)
    if entry.operation == "lift":
        return
    set_alias(models, PREVIOUS, entry.previous)
    target = entry.after.version if entry.after is not None else None
    set_alias(models, CHAMPION, target)
    champion = models.by_alias(CHAMPION)
    if (champion.number if champion is not None else None) != target:
        raise Overtaken(models.name)


def set_tags(models: Models, entry: Entry, absent: int | None = None) -> None:
    """Set the tags that an entry says, but for those of a version that isn't there."""
    for number, key, value in _tags(entry):
        if number != absent:
            models.set_tag(number, key, value)


def set_alias(models: Models, alias: str, number: int | None) -> None:
    """Bring an alias to a version, or take it away, where it isn't so."""
    found = models.by_alias(alias)
    if number is None:
        if found is not None:
            models.delete_alias(alias)
    elif found is None or found.number != number:
        models.set_alias(alias, number)


def _tags(entry: Entry) -> list[tuple[int, str, str]]:
    at = entry.committed_at or entry.at
    if entry.operation == "promote" and entry.after is not None and entry.after.version is not None:
        return [(entry.after.version, PROMOTED, at)]
    if entry.operation == "rollback" and entry.before is not None and entry.before.version is not None:
        target = entry.after.version if entry.after is not None else None
        facts = quarantine.facts(entry.reason, at, entry.by, target)
        return [(entry.before.version, key, value) for key, value in facts.items()]
    if entry.operation == "lift" and entry.lifted is not None:
        facts = quarantine.lifted(entry.reason, at, entry.by)
        return [(entry.lifted, key, value) for key, value in facts.items()]
    return []
