"""Sign a version: as it is promoted, or one that was registered before there was a key."""

from typing import TYPE_CHECKING, Any

from clinprompt.contract.variables import SIGNING_KEY
from clinprompt.errors import BadParams
from registry import keys, protocol, signature, tracking
from registry.chosen import chosen
from registry.consumer import Champion
from registry.versions import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient


def sign(name: str, which: int | str | None = None, *, journal: str | None = None) -> dict[str, Any]:
    """Check every digest of a version, and sign its files with what CLINPROMPT_SIGNING_KEY names.

    Args:
        which: a version's number or an alias; by default the champion.
        journal: `registry.journal` of params.yaml.

    Returns:
        name, version, and who the signature is of, as `signer`.

    Raises:
        BadParams: there is no key to sign with.
        InputMissing: there is no such version, or a file is missing.
        InputCorrupt: a file differs from what was registered.
        ServiceDown: the MLflow server, or the sigstore instance, does not answer.
    """
    with protocol.opened(name, journal):
        version = chosen(name, which)
        key = keys.for_signing()
        if key is None:
            raise BadParams(f"{SIGNING_KEY} names no key to sign with.")
        text = Champion(version).sign(key)
        keep(tracking.connect(), version, text)
    return {"name": name, "version": version.number, "signer": signature.claimed({signature.SIGNATURE: text})}


def keep(client: "MlflowClient", version: Version, text: str) -> None:
    """Have MLflow keep a version's signature, and nothing of one of an earlier release."""
    with tracking.service_errors():
        tracking.insert(client.set_model_version_tag, version.name, str(version.number), signature.SIGNATURE, text)
        if signature.EARLIER_KEY in version.tags:
            client.delete_model_version_tag(version.name, str(version.number), signature.EARLIER_KEY)
