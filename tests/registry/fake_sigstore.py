"""A sigstore instance in miniature, on this machine: what issues certificates (Fulcio) and the public log (Rekor).

The library's client talks to it as to any other, and checks all that it answers: the certificate and its timestamp, the
log's proof and promise. It stands for no real one: who asks is believed.
"""

import base64
import hashlib
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://issuer.example"
_OIDC_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_SINCE = "2020-01-01T00:00:00Z"


def identity_token(subject: str, *, audience: str = "sigstore", lives: int = 600) -> str:
    """An identity token of this instance's issuer. Clients can't check its signature, and there is none."""
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": subject, "aud": audience, "iat": now - 60, "exp": now + lives}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)] + [b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


@dataclass
class Sigstore:
    """The instance.

    Attributes:
        asked: the path of each request, and its body and headers as text.
        answers_with: an HTTP status that certificates are refused with.
        silent: whose requests, by the end of their path, are taken and never answered.
    """

    uri: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    answers_with: int | None = None
    silent: str | None = None
    over: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._root_key, self._timestamps, self._log = _key(), _key(), _key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        builder = _dated(x509.CertificateBuilder().subject_name(name), name, self._root_key.public_key(), days=1)
        usage = {"key_cert_sign": True, "crl_sign": True, "digital_signature": False}
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(**usage), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._root_key.public_key())
        self._root = builder.add_extension(own, critical=False).sign(self._root_key, SHA256())

    def write_trust_config(self, path: Path) -> Path:
        """What clients are told of the instance."""
        since = {"start": _SINCE}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            raw = _spki(key)
            public = {"rawBytes": _b64(raw), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            log_id = {"keyId": _b64(hashlib.sha256(raw).digest())}
            return {"baseUrl": self.uri, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": log_id}

        service = [{"url": self.uri, "majorApiVersion": 1, "validFor": since, "operator": "here"}]
        authority = {
            "subject": {"organization": "here", "commonName": "root"},
            "uri": self.uri,
            "certChain": {"certificates": [{"rawBytes": _b64(self._root.public_bytes(Encoding.DER))}]},
            "validFor": since,
        }
        config = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self._log)],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self._timestamps)],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": service,
                "oidcUrls": service,
                "rekorTlogUrls": service,
                "tsaUrls": [],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }
        path.write_text(json.dumps(config))
        return path

    def certificate(self, authorization: str, request: dict[str, Any]) -> dict[str, Any]:
        """A certificate for the key of a request, with the identity of the token that came with it."""
        claims = authorization.split(".")[1]
        subject = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]
        csr = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        builder = _dated(
            x509.CertificateBuilder().subject_name(x509.Name([])), self._root.subject, csr.public_key(), days=0.01
        )
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key())
        builder = builder.add_extension(by, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(subject)]), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        issuer = x509.UnrecognizedExtension(_OIDC_ISSUER, ISSUER.encode())
        builder = builder.add_extension(issuer, critical=False)
        tbs = builder.sign(self._root_key, SHA256()).tbs_certificate_bytes
        listed = x509.UnrecognizedExtension(_TIMESTAMPS, self._timestamp(tbs))
        leaf = builder.add_extension(listed, critical=False).sign(self._root_key, SHA256())
        chain = [one.public_bytes(Encoding.PEM).decode() for one in (leaf, self._root)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def _timestamp(self, tbs: bytes) -> bytes:
        """The list of one signed timestamp of a certificate (RFC 6962), as its extension holds it."""
        now = int(time.time() * 1000)
        entry = hashlib.sha256(_spki(self._root_key)).digest() + len(tbs).to_bytes(3, "big") + tbs
        signature = _sign(self._timestamps, struct.pack("!BBQH", 0, 0, now, 1) + entry + struct.pack("!H", 0))
        log_id = hashlib.sha256(_spki(self._timestamps)).digest()
        one = b"\0" + log_id + struct.pack("!QHBBH", now, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(one) + 2, len(one)) + one
        return b"\x04" + (b"\x81" if len(listed) > 127 else b"") + bytes([len(listed)]) + listed  # an octet string

    def entry(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """The log's entry of a DSSE envelope: of hashes, the signature and the certificate; alone in its tree."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"])
        hashes = {"envelopeHash": content["envelope"].encode(), "payloadHash": payload}
        spec: dict[str, Any] = {
            key: {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()} for key, data in hashes.items()
        }
        spec["signatures"] = [{"signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0]}]
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        root, log_id = hashlib.sha256(b"\0" + body).digest(), hashlib.sha256(_spki(self._log)).digest()
        note = f"here - 1\n1\n{_b64(root)}\n"
        signed_note = f"{note}\n— here {_b64(log_id[:4] + _sign(self._log, note.encode()))}\n"
        told = {"body": _b64(body), "integratedTime": int(time.time()), "logID": log_id.hex(), "logIndex": 0}
        promise = _sign(self._log, json.dumps(told, sort_keys=True, separators=(",", ":")).encode())
        proof = {"checkpoint": signed_note, "hashes": [], "logIndex": 0, "rootHash": root.hex(), "treeSize": 1}
        return {"0" * 64: told | {"verification": {"inclusionProof": proof, "signedEntryTimestamp": _b64(promise)}}}


def _dated(builder: x509.CertificateBuilder, issuer: x509.Name, key: Any, *, days: float) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = builder.issuer_name(issuer).public_key(key).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(now + timedelta(days=days))


def _usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**(dict.fromkeys(names, False) | given))


@contextmanager
def running() -> Iterator[Sigstore]:
    """An instance that answers."""
    instance = Sigstore()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            instance.asked.append((self.path, "", str(self.headers)))
            self._answer({"authorization_endpoint": f"{instance.uri}/auth", "token_endpoint": f"{instance.uri}/token"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            instance.asked.append((self.path, body, str(self.headers)))
            if instance.silent is not None and self.path.endswith(instance.silent):
                instance.over.wait()
            elif self.path == "/api/v1/log/entries":
                self._answer(instance.entry(json.loads(body)), 201)
            elif instance.answers_with:
                self._answer({"message": self.headers["Authorization"]}, instance.answers_with)
            else:
                self._answer(instance.certificate(self.headers["Authorization"], json.loads(body)), 201)

        def _answer(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.uri = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield instance
    finally:
        instance.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
