"""The files that sign and verify: which are taken, and what is said of others."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from clinprompt.errors import BadParams, ClinpromptError, InputMissing
from registry import keys

Name = Callable[[bytes], None]
PAIR = "openssl ecparam -name prime256v1 -genkey -noout -out signing.pem && openssl ec -in signing.pem -pubout"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"  # noqa: S105


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Name:
    """Writes a file, which both variables name."""

    def write(data: bytes) -> None:
        (tmp_path / "key").write_bytes(data)
        for variable in ("CLINPROMPT_SIGNING_KEY", "CLINPROMPT_VERIFICATION_KEY"):
            monkeypatch.setenv(variable, str(tmp_path / "key"))

    return write


def test_no_name_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLINPROMPT_SIGNING_KEY", raising=False)
    monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", "")
    assert (keys.for_signing(), keys.for_verification()) == (None, None)
    monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", "/absent")
    with pytest.raises(InputMissing, match="/absent does not exist"):
        keys.for_verification()


def test_the_pair_that_the_sentence_makes_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINPROMPT_SIGNING_KEY", __file__)
    with pytest.raises(BadParams, match="is no PEM file of an unencrypted private key") as caught:
        keys.for_signing()
    command = str(caught.value).split("`")[1]
    assert command.startswith(PAIR)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)  # noqa: S602
    monkeypatch.setenv("CLINPROMPT_SIGNING_KEY", str(tmp_path / "signing.pem"))
    monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", str(tmp_path / "verification.pem"))
    assert keys.for_signing() == keys.PrivateKey(tmp_path / "signing.pem")
    assert isinstance(keys.for_verification(), keys.PublicKey)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_each_curve_of_sigstore_s_is_taken(name: Name, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    name(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert isinstance(keys.for_signing(), keys.PrivateKey)
    name(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert isinstance(keys.for_verification(), keys.PublicKey)


@pytest.mark.parametrize("kind", ["Ed25519", "RSA", "secp256k1", "password", "text", "empty"])
def test_another_key_is_refused_with_the_command_that_makes_one(name: Name, kind: str) -> None:
    if kind in ("text", "empty"):
        name(b"a secret" if kind == "text" else b"")
    else:
        key = {
            "Ed25519": ed25519.Ed25519PrivateKey.generate,
            "RSA": lambda: rsa.generate_private_key(65537, 2048),
            "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
            "password": lambda: ec.generate_private_key(ec.SECP256R1()),
        }[kind]()
        locked = BestAvailableEncryption(b"password") if kind == "password" else NoEncryption()
        name(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(BadParams, match=r"CLINPROMPT_SIGNING_KEY: .*key is no PEM file of an unencrypted private key"):
        keys.for_signing()
    with pytest.raises(BadParams, match=r"CLINPROMPT_VERIFICATION_KEY: .*key is no PEM file of a public key") as caught:
        keys.for_verification()
    assert PAIR in str(caught.value)
    assert "a secret" not in str(caught.value)


def test_settings_name_files_from_their_own_folder(name: Name, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "trust.json").write_text("{}")
    name(json.dumps({"sigstore": {"token_file": "token", "trust_config": str(tmp_path / "trust.json")}}).encode())
    found = keys.for_signing()
    assert isinstance(found, keys.TokenSigner)
    assert (found.token_file, found.trust_config) == (str(tmp_path / "token"), str(tmp_path / "trust.json"))
    name(json.dumps({"sigstore": {"identity": "me@example.org", "issuer": "https://issuer.example"}}).encode())
    assert keys.for_verification() == keys.Identity(identity="me@example.org", issuer="https://issuer.example")


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ('{"sigstore": ', BadParams, "is neither a PEM file nor JSON"),
        ("{}", BadParams, "sigstore: Field required"),
        ('{"sigstore": {}}', BadParams, "sigstore.*: Field required"),
        ('{"sigstore": {"token_file": 1}}', BadParams, "sigstore.token_file: Input should be a valid string"),
        ('{"sigstore": {"token_file": "absent"}}', InputMissing, "absent does not exist"),
        ('{"sigstore": {"token_file": "key", "trust_config": "gone"}}', InputMissing, "gone does not exist"),
        ('{"sigstore": {"token_file": "key", "token": "%s"}}', BadParams, "sigstore.token: Extra inputs"),
        ('{"sigstore": {"token_file": "%s"}}', BadParams, "must be the path of a file"),
        ('{"sigstore": "%s"}', BadParams, "sigstore: Input should be"),
    ],
)
def test_wrong_settings_have_a_sentence_without_what_they_hold(
    name: Name, settings: str, kind: type[ClinpromptError], says: str
) -> None:
    name(settings.replace("%s", TOKEN).encode())
    with pytest.raises(kind, match=says) as caught:
        keys.for_signing()
    assert TOKEN not in str(caught.value)


def test_an_identity_is_whole(name: Name) -> None:
    for settings in (
        {"identity": "", "issuer": "i"},
        {"identity": "me"},
        {"identity": "me", "issuer": "i", "other": 1},
    ):
        name(json.dumps({"sigstore": settings}).encode())
        with pytest.raises(BadParams, match=r"key: sigstore\."):
            keys.for_verification()
