"""Who a signature says that it is of: read from sigstore's bundle, as a version's tag keeps it, and not checked."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

_LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class Claim:
    """What a signature says of itself.

    Attributes:
        kind: a key's; an identity's, as sigstore's keyless signing makes it; of an earlier release of this project, in
            a form of its own; or nothing that can be read.
        name: the key's hint, or the identity and who proved it; else words for it.
    """

    kind: Literal["key", "identity", "earlier", "unreadable"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.kind in ("key", "identity") else self.name


def claim(text: str) -> Claim:
    """Who the signature with this text says that it is of."""
    if re.fullmatch("[A-Za-z0-9+/]{86}==", text):  # of 64 bytes
        return Claim("earlier", "in the form of an earlier release")
    try:
        material = json.loads(text)["verificationMaterial"]
        if "publicKey" in material:
            hint = material["publicKey"]["hint"]
            if re.fullmatch("[0-9a-f]{64}", hint):
                return Claim("key", hint)
        else:
            return Claim("identity", _identity(material["certificate"]["rawBytes"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return Claim("unreadable", "no signature that can be read")


def _identity(certificate: str) -> str:
    """Whom a certificate of sigstore's names, and the issuer who proved that."""
    from cryptography import x509

    issued = x509.load_der_x509_certificate(base64.b64decode(certificate, validate=True)).extensions
    names: Any = issued.get_extension_for_class(x509.SubjectAlternativeName).value
    found = [*names.get_values_for_type(x509.RFC822Name), *names.get_values_for_type(x509.UniformResourceIdentifier)]
    [issuer] = [one.value.value for one in issued if one.oid.dotted_string == "1.3.6.1.4.1.57264.1.1"]
    return _shown(f"{found[0]} ({issuer.decode()})")


def _shown(text: str) -> str:
    """A stranger's text on one line, without what would steer a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:_LONGEST]
