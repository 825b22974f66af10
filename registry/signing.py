"""Sign a version that was registered before there was a key."""

from dataclasses import replace
from typing import Any

from clinprompt.contract.variables import SIGNING_KEY
from clinprompt.errors import BadParams
from registry import protocol, signature
from registry.chosen import chosen
from registry.consumer import Champion


def sign(name: str, which: int | str | None = None, *, journal: str | None = None) -> dict[str, Any]:
    """Check every digest of a version, and sign it with the key that CLINPROMPT_SIGNING_KEY names.

    Args:
        which: a version's number or an alias; by default the champion.
        journal: `registry.journal` of params.yaml.

    Raises:
        BadParams: there is no key to sign with.
        InputMissing: there is no such version, or a file is missing.
        InputCorrupt: a file differs from what was registered.
        ServiceDown: the MLflow server does not answer.
    """
    with protocol.opened(name, journal) as turn:
        version = chosen(name, which)
        tags = signature.signed(version.tags)
        if not tags:
            raise BadParams(f"{SIGNING_KEY} names no key to sign with.")
        _ = Champion(replace(version, tags=version.tags | tags)).model_folder  # each digest, and the new signature
        for key, value in tags.items():
            turn.models.set_tag(version.number, key, value)
    return {"name": name, "version": version.number, "key": tags[signature.KEY]}
