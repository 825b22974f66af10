"""Quarantine: versions that were rolled back, and that no promotion may make the champion again.

The production version's tags hold it. `quarantined` is written last, so that who, when and why are there when it is.
"""

from typing import TYPE_CHECKING

from clinprompt.errors import BadParams
from registry.versions import Version, search

if TYPE_CHECKING:
    from mlflow import MlflowClient

MARK, HELD, LIFTED = "quarantined", "true", "lifted"
REASON, AT, BY, CHAMPION = (f"quarantine_{key}" for key in ("reason", "at", "by", "champion"))
LIFT = "quarantine_lifted"
_LONGEST = 1000  # characters of a reason: well below what MLflow takes for a tag
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


def facts(reason: str, at: str, by: str, champion: int | None) -> dict[str, str]:
    """The tags that put a version in quarantine, in whose place the version `champion` serves."""
    return {REASON: reason, AT: at, BY: by, CHAMPION: str(champion), MARK: HELD}


def lifted(reason: str, at: str, by: str) -> dict[str, str]:
    """The tags that end a quarantine."""
    return {LIFT: f"{at} by {by}: {reason}", MARK: LIFTED}


def worded(reason: str) -> str:
    """A reason in one line.

    Raises:
        BadParams: it is empty, or longer than the registry keeps.
    """
    one_line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    if not one_line:
        raise BadParams("--reason: say why in a few words; they are kept with the version.")
    if len(one_line) > _LONGEST:
        raise BadParams(f"--reason: say why in a few words, at most {_LONGEST:,} characters; found {len(one_line):,}.")
    return one_line
