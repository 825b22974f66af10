"""The files that sign and verify registered models: a PEM file is a key, a JSON file asks for sigstore's identities.

No value that a file holds is in an error: it may be a secret that was put into the wrong one.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from clinprompt.contract.variables import SIGNING_KEY, VERIFICATION_KEY
from clinprompt.errors import BadParams
from clinprompt.files import read_regular, sha256_bytes
from clinprompt.schema import Section

_LARGEST = 10_000  # bytes of a file
_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those of sigstore's bundles: P-256, P-384 and P-521
_MAKE_PAIR = (
    "`openssl ecparam -name prime256v1 -genkey -noout -out signing.pem && openssl ec -in signing.pem -pubout -out "
    "verification.pem` makes a pair"
)
_OTHERS = "Keys of other kinds (Ed25519, RSA) are not taken"


@dataclass(frozen=True)
class PrivateKey:
    """The file of a private key."""

    path: Path


@dataclass(frozen=True)
class PublicKey:
    """The file of a public key, and what a bundle calls that key: the SHA-256 of its PEM text."""

    path: Path
    hint: str


def _no_token(path: str) -> str:
    if path.startswith("eyJ"):  # how each JSON Web Token begins
        raise ValueError("must be the path of a file, and is what such a file holds")
    return path


_Path = Annotated[str, Field(min_length=1), AfterValidator(_no_token)]
_Text = Annotated[str, Field(min_length=1)]


class _Sigstore(Section):
    """A sigstore instance; without `trust_config`, the client trust config of a private one, it is the public one."""

    trust_config: _Path | None = None


class TokenSigner(_Sigstore):
    """Signs as the one whose identity token (OIDC) is in a file, which is read when something is signed.

    Attributes:
        answers_within: seconds that the instance has for all of its answers.
    """

    token_file: _Path
    answers_within: Annotated[int, Field(ge=1, le=3600)] = 90


class Identity(_Sigstore):
    """Who must have signed: an e-mail address or a URI, as the issuer at a URL has proved it."""

    identity: _Text
    issuer: _Text


class _SigningFile(Section):
    sigstore: TokenSigner


class _VerificationFile(Section):
    sigstore: Identity


_File = TypeVar("_File", _SigningFile, _VerificationFile)


def for_signing() -> PrivateKey | TokenSigner | None:
    """What the variable CLINPROMPT_SIGNING_KEY names to sign with; None where it names nothing.

    Raises:
        InputMissing: there is no such file, or none that it names.
        BadParams: it holds neither an unencrypted private key of a known curve, in PEM, nor settings as they must be.
    """
    found = _read(SIGNING_KEY)
    if found is None:
        return None
    path, data = found
    if _is_json(data):
        return _settings(_SigningFile, SIGNING_KEY, path, data).sigstore
    if not _is_private_key(data):
        raise BadParams(
            f"{SIGNING_KEY}: {path} is no PEM file of an unencrypted private key of the elliptic curve P-256, P-384 or "
            f"P-521; {_MAKE_PAIR}. {_OTHERS}."
        )
    return PrivateKey(path)


def for_verification() -> PublicKey | Identity | None:
    """What the variable CLINPROMPT_VERIFICATION_KEY names to verify with; None where it names nothing.

    Raises:
        InputMissing: there is no such file, or none that it names.
        BadParams: it holds neither a public key of a known curve, in PEM, nor settings as they must be.
    """
    found = _read(VERIFICATION_KEY)
    if found is None:
        return None
    path, data = found
    if _is_json(data):
        return _settings(_VerificationFile, VERIFICATION_KEY, path, data).sigstore
    hint = _hint(data)
    if hint is None:
        raise BadParams(
            f"{VERIFICATION_KEY}: {path} is no PEM file of a public key of the elliptic curve P-256, P-384 or P-521; "
            f"{_MAKE_PAIR}. {_OTHERS}."
        )
    return PublicKey(path, hint)


def _read(variable: str) -> tuple[Path, bytes] | None:
    value = os.environ.get(variable)
    return (Path(value), read_regular(Path(value), _LARGEST)) if value else None


def _is_json(data: bytes) -> bool:
    return data.lstrip().startswith(b"{")


def _settings(model: type[_File], variable: str, path: Path, data: bytes) -> _File:
    """The settings in a JSON file. The files that they name are there; relative paths start from the file's folder."""
    try:
        found = model.model_validate(json.loads(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        what = first["msg"].removeprefix("Value error, ")
        raise BadParams(f"{variable}: {path}: {'.'.join(map(str, first['loc']))}: {what}.") from None
    except (ValueError, RecursionError):
        raise BadParams(f"{variable}: {path} is neither a PEM file nor JSON.") from None
    named = found.sigstore.model_dump(include={"token_file", "trust_config"}, exclude_none=True)
    whole = {key: str(path.parent / value) for key, value in named.items()}
    for file in whole.values():
        read_regular(Path(file), 1)
    return found.model_copy(update={"sigstore": found.sigstore.model_copy(update=whole)})


def _is_private_key(data: bytes) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        key = load_pem_private_key(data, password=None)
        return isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVES
    return False


def _hint(data: bytes) -> str | None:
    """What a bundle calls a public key; None of what is no such key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    with suppress(ValueError, UnsupportedAlgorithm):
        key = load_pem_public_key(data)
        if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
            return sha256_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return None
