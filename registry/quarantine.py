"""Quarantine: versions that were rolled back, and that no promotion may make the champion again.

The production version's tags hold it. `quarantined` is written last, so that who, when and why are there when it is.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clinprompt.errors import BadParams
from registry import links, tracking
from registry.versions import Version, by_number, search

if TYPE_CHECKING:
    from mlflow import MlflowClient

MARK, HELD, LIFTED = "quarantined", "true", "lifted"
REASON, AT, BY, CHAMPION = (f"quarantine_{key}" for key in ("reason", "at", "by", "champion"))
LIFT = "quarantine_lifted"
_SAME = ("payload_digest", "model_digest")


def is_held(version: Version) -> bool:
    """Whether the version is in quarantine."""
    return version.tags.get(MARK) == HELD


def held(client: "MlflowClient", name: str) -> list[Version]:
    """The versions of `name` in quarantine, newest first."""
    versions = search(client, name, f"tags.{MARK} = '{HELD}'")
    return sorted(versions, key=lambda version: -version.number)


def match(versions: list[Version], facts: dict[str, str]) -> Version | None:
    """The version among `versions` whose payload, or whose tuned model in another payload, is the one of `facts`."""
    for version in versions:
        if any(key in facts and version.tags.get(key) == facts[key] for key in _SAME):
            return version
    return None


def hold(client: "MlflowClient", version: Version, reason: str, champion: Version) -> None:
    """Put a version in quarantine, in whose place `champion` is to serve."""
    facts = {REASON: reason, AT: _now(), BY: links.requester(), CHAMPION: str(champion.number), MARK: HELD}
    with tracking.service_errors():
        for key, value in facts.items():
            client.set_model_version_tag(version.name, str(version.number), key, value)


def worded(reason: str) -> str:
    """A reason in one line.

    Raises:
        BadParams: it is empty.
    """
    one_line = " ".join(reason.split())
    if not one_line:
        raise BadParams("--reason: say why in a few words; they are kept with the version.")
    return one_line


def lift(name: str, number: int, reason: str) -> dict[str, Any]:
    """Let a version be promoted again; the tags keep who lifted the quarantine, when and why.

    Raises:
        BadParams: no reason is given.
        InputMissing: there is no such version.
        ServiceDown: the MLflow server does not answer.
    """
    reason = worded(reason)
    with tracking.promotion_lock():
        client = tracking.connect()
        version = by_number(client, name, number)
        action = "lifted" if is_held(version) else "unchanged"
        if action == "lifted":
            with tracking.service_errors():
                for key, value in ((LIFT, f"{_now()} by {links.requester()}: {reason}"), (MARK, LIFTED)):
                    client.set_model_version_tag(name, str(number), key, value)
    return {"model": name, "action": action, "version": number}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
