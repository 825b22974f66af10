"""Files from the Hugging Face hub, at one commit. No served model carries this."""

import errno
from collections.abc import Sequence
from pathlib import Path

from clinprompt.backbones.folder import TOKENIZER_FILES
from clinprompt.backbones.table import CONFIG, BackboneEntry
from clinprompt.errors import InputMissing, ServiceDown
from clinprompt.hub import snapshot


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
