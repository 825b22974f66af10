"""An open_clip folder from the Hugging Face hub, at one commit, and loading without asking the hub."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clinprompt.backbones.table import CONFIG, BackboneEntry
from clinprompt.errors import InputMissing, ServiceDown
from clinprompt.hub import snapshot

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def check_tokenizer(folder: Path) -> None:
    """Whether a folder holds a tokenizer.

    Raises:
        InputMissing: it does not.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputMissing(f"{folder} holds no tokenizer: expected tokenizer.json or vocab.txt.")


def download(name: str, entry: BackboneEntry) -> Path:
    """Download what a load needs of `entry` at its pinned commit, and return the folder in the hub's local cache.

    Raises:
        InputMissing, ServiceDown: as `fetched`.
    """
    files = [CONFIG, entry.weights, "config.json", *TOKENIZER_FILES]
    return fetched(f"the backbone {name!r}", str(entry.hub), str(entry.revision), files)


def fetched(what: str, repo: str, revision: str, files: Sequence[str]) -> Path:
    """Some files of a repository at a commit, in the hub's local cache; where the hub does not answer, what is there.

    Raises:
        InputMissing: the hub has no such repository or commit.
        ServiceDown: the hub can't be reached and the cache does not hold the files.
    """
    from huggingface_hub.errors import (
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    model = f"{what} ({repo} at {revision})"
    try:
        return snapshot(repo, revision, files)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise InputMissing(f"The Hugging Face hub does not have {model}; check the table's entry.") from None
    except LocalEntryNotFoundError:
        raise ServiceDown(
            f"Could not download {model}: the hub does not answer, and the local cache does not hold it. Try again "
            "later, or set backbone.path to a folder with its files (docs/operations.md lists them)."
        ) from None
    except (OSError, HTTPError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split())
        raise ServiceDown(
            f"Could not download {model}: {reason}. Try again later, or put its folder somewhere and set backbone.path."
        ) from None


@contextmanager
def offline() -> Iterator[None]:
    """Keep libraries from asking the hub inside the block, whatever the names in a config."""
    from huggingface_hub import constants

    previous = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = previous
