"""The Hugging Face hub: snapshots at one commit, and no waiting for a hub that does not answer."""

from collections.abc import Sequence
from pathlib import Path

PATIENCE = 4.0  # seconds; the hub's client by itself tries five times, for half a minute


def hub_answers() -> bool:
    """Whether the hub can be reached; False also where HF_HUB_OFFLINE forbids to try."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except (OSError, HTTPError):
        return False
    return True


def snapshot(repo: str, revision: str, patterns: Sequence[str]) -> Path:
    """A folder with the files of a repository at a commit; of the local cache alone where the hub does not answer.

    Raises:
        OSError, HTTPError: as huggingface_hub's; LocalEntryNotFoundError where the cache does not hold it either.
    """
    import huggingface_hub

    offline = not hub_answers()
    folder = huggingface_hub.snapshot_download(
        repo, revision=revision, allow_patterns=list(patterns), local_files_only=offline
    )
    return Path(folder)
