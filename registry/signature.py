"""The signature of a registered model: an Ed25519 key's, over the digests of all of its files.

Who can write to the registry can change a file and the digest that it is held against. The signature can't be changed
along with them by who does not have the private key, which only the promoter has.
"""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.contract.variables import SIGNING_KEY, VERIFICATION_KEY
from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import read_regular, sha256_bytes, to_json
from registry.model_folder import FILES_TAG

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE, KEY = "signature", "signature_key"  # tags of a version: in base64; the SHA-256 of the public key
_LARGEST = 10_000  # bytes of a key's file


def signed(tags: dict[str, str]) -> dict[str, str]:
    """The tags that sign a version with these tags; none where the variable CLINPROMPT_SIGNING_KEY names no key.

    Raises:
        InputMissing: there is no such file.
        BadParams: it holds no unencrypted Ed25519 private key in PEM.
    """
    path = os.environ.get(SIGNING_KEY)
    if not path:
        return {}
    key = _private(Path(path))
    signature = base64.b64encode(key.sign(_message(tags))).decode()
    return {SIGNATURE: signature, KEY: _name(key.public_key())}


def check(name: str, number: int, tags: dict[str, str]) -> bool:
    """Check a version's signature; False where the variable CLINPROMPT_VERIFICATION_KEY names no key, so it was not.

    Raises:
        InputCorrupt: it is not signed, or not by this key, or its digests are not those that were signed.
        InputMissing, BadParams: the key can't be read.
    """
    path = os.environ.get(VERIFICATION_KEY)
    if not path:
        return False
    from cryptography.exceptions import InvalidSignature

    key, where = _public(Path(path)), f"Version {number} of {name!r}"
    if SIGNATURE not in tags:
        raise InputCorrupt(f"{where} is not signed, and {VERIFICATION_KEY} asks for it: don't use this model.")
    try:
        key.verify(base64.b64decode(tags[SIGNATURE], validate=True), _message(tags))
    except (InvalidSignature, ValueError):
        other = "" if tags.get(KEY) == _name(key) else ", but with another"
        raise InputCorrupt(f"{where} was not signed with the key {path}{other}: don't use this model.") from None
    return True


def _message(tags: dict[str, str]) -> bytes:
    """What is signed: the digest of the payload's manifest, and the digests of all other files."""
    return to_json({"files": tags.get(FILES_TAG), "payload": tags.get("payload_digest")}).encode()


def _private(path: Path) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(read_regular(path, _LARGEST), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadParams(
            f"{SIGNING_KEY}: {path} is no Ed25519 private key; `openssl genpkey -algorithm ed25519` makes one."
        )
    return key


def _public(path: Path) -> "Ed25519PublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(read_regular(path, _LARGEST))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise BadParams(f"{VERIFICATION_KEY}: {path} is no Ed25519 public key; `openssl pkey -pubout` writes one.")
    return key


def _name(key: "Ed25519PublicKey") -> str:
    return sha256_bytes(key.public_bytes_raw())
