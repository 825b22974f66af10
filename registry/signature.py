"""The signature of a registered model, over all of its files: sigstore's bundle, which `model_signing verify` knows.

Who can write to the registry can change a file and the digest that it is held against. The signature can't be changed
along with them by who has neither the private key nor the identity that signs, which only the promoter has.
"""

import shlex
from pathlib import Path

from clinprompt.contract.variables import SIGNING_KEY, VERIFICATION_KEY
from clinprompt.errors import BadParams, InputCorrupt
from registry import bundle, keys

SIGNATURE = "signature"  # the tag of a version
EARLIER_KEY = "signature_key"  # beside signatures of an earlier release
SIGNED_NAME = "model"  # of the folder that is signed: it is part of the signed statement
_LONGEST = 100_000  # characters of a version's tag that MLflow keeps


def made(folder: Path, key: keys.PrivateKey | keys.TokenSigner) -> str:
    """The signature of all files of a folder, as text.

    Raises:
        BadParams: it is too long for a tag; or the sigstore instance refuses to sign.
        InputMissing, InputCorrupt: there is no identity token, or none that is valid now.
        ServiceDown: the sigstore instance does not answer.
    """
    from registry import signers

    text = signers.made(folder, key)
    if len(text) > _LONGEST:
        files = sum(path.is_file() for path in folder.rglob("*"))
        raise BadParams(
            f"The signature of a model of {files} files has {len(text)} characters, and MLflow keeps {_LONGEST}: "
            f"unset {SIGNING_KEY}, and sign what `python -m registry export` writes with `model_signing sign`."
        )
    return text


def check(name: str, number: int, tags: dict[str, str], folder: Path) -> bool:
    """Check a version's signature against its files in a folder, before anything of them is run.

    Returns:
        False where the variable CLINPROMPT_VERIFICATION_KEY names nothing to check it by, so that it was not.

    Raises:
        InputCorrupt: it is not signed, or by somebody else, or its files are not those that were signed.
        InputMissing, BadParams: the key can't be read.
        ServiceDown: the public sigstore instance, whose keys an identity is checked by, does not answer.
    """
    key = keys.for_verification()
    if key is None:
        return False
    where = f"Version {number} of {name!r}"
    if SIGNATURE not in tags:
        raise InputCorrupt(f"{where} is not signed, and {VERIFICATION_KEY} asks for it: don't use this model.")
    claim = bundle.claim(tags[SIGNATURE])
    if claim.kind == "earlier":
        raise InputCorrupt(
            f"{where} is signed {claim.name}, which can't be checked any more: sign it again with `python -m "
            f"registry sign {shlex.quote(name)} --version {number}`."
        )
    if claim.kind == "unreadable":
        raise InputCorrupt(f"{where} has a signature that can't be read: don't use this model.")
    if isinstance(key, keys.PublicKey):
        who, expected = f"with the key {key.path}", bundle.Claim("key", key.hint)
    else:
        who, expected = f"by {key.identity} ({key.issuer})", bundle.Claim("identity", f"{key.identity} ({key.issuer})")
    if claim.kind == expected.kind and _is_signed(folder, tags[SIGNATURE], key):
        return True
    if claim == expected:
        raise InputCorrupt(f"{where} was not signed {who} with the files that it has: don't use this model.")
    another = "with another" if isinstance(key, keys.PublicKey) else "with a key"
    other = f"by {claim.name}" if claim.kind == "identity" else another
    raise InputCorrupt(f"{where} was not signed {who}, but {other}: don't use this model.")


def claimed(tags: dict[str, str]) -> str | None:
    """Who a version's signature says that it is of, which is not checked here; None where it has none."""
    return str(bundle.claim(tags[SIGNATURE])) if SIGNATURE in tags else None


def readable(tags: dict[str, str]) -> str | None:
    """A version's signature, where it is one that `model_signing verify` can check."""
    return tags[SIGNATURE] if SIGNATURE in tags and bundle.claim(tags[SIGNATURE]).kind in ("key", "identity") else None


def _is_signed(folder: Path, text: str, key: keys.PublicKey | keys.Identity) -> bool:
    from registry import signers

    try:
        signers.verify(folder, text, key)
    except signers.NotSigned:
        return False
    return True
