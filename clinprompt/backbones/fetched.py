"""Where the backbones lie that `python -m clinprompt.backbones.fetch` makes."""

import os
from pathlib import Path

from clinprompt.contract.variables import BACKBONES


def fetched_folder(name: str) -> Path:
    """The folder into which a backbone is fetched, and where it is looked for.

    Below `CLINPROMPT_BACKBONES`, or else in the user's cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(BACKBONES) or Path(cache, "clinprompt", "backbones")) / name
