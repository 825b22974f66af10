"""The signature of a registered model: made by the promoter, asked for by who has the public key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fabricate import Run, promote

import registry
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from registry import signature
from registry.__main__ import main
from registry.model_folder import FILES_TAG
from registry.tracking import connect

TAGS = {"payload_digest": "a" * 64, FILES_TAG: "{}"}


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a pair of keys; the public one's path."""

    def make(name: str) -> Path:
        private, public = tmp_path / f"{name}.key", tmp_path / f"{name}.pub"
        key = Ed25519PrivateKey.generate()
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        monkeypatch.setenv("CLINPROMPT_SIGNING_KEY", str(private))
        monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", str(public))
        return public

    return make


def test_what_was_signed_is_known_and_nothing_else(
    keys: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys("mine")
    tags = TAGS | signature.signed(TAGS)
    assert signature.check("m", 1, tags)
    for change in ({"payload_digest": "b" * 64}, {FILES_TAG: '{"MLmodel": "0"}'}, {"signature": "AAAA"}):
        with pytest.raises(InputCorrupt, match="Version 1 of 'm' was not signed with the key"):
            signature.check("m", 1, tags | change)
    with pytest.raises(InputCorrupt, match="is not signed, and CLINPROMPT_VERIFICATION_KEY asks for it"):
        signature.check("m", 1, TAGS)
    keys("another")
    with pytest.raises(InputCorrupt, match="but with another"):
        signature.check("m", 1, tags)
    monkeypatch.delenv("CLINPROMPT_VERIFICATION_KEY")
    assert not signature.check("m", 1, TAGS)


def test_a_file_that_is_no_key_has_a_sentence(
    keys: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = keys("mine")
    monkeypatch.setenv("CLINPROMPT_SIGNING_KEY", str(public))
    with pytest.raises(BadParams, match="is no Ed25519 private key"):
        signature.signed(TAGS)
    monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", str(tmp_path / "absent"))
    with pytest.raises(InputMissing, match="does not exist"):
        signature.check("m", 1, TAGS)


def test_a_promotion_signs_and_consumers_refuse_what_is_not(
    challenged: Run, keys: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys("mine")
    with pytest.raises(InputCorrupt, match="Version 1 of 'tiny' is not signed"):
        registry.load("tiny")  # it was promoted before there was a key
    assert promote(challenged) == 67  # nor is it compared with
    assert main(["sign", "tiny"]) == 0
    assert promote(challenged) == 0
    capsys.readouterr()
    assert main(["verify", "tiny"]) == 0
    assert capsys.readouterr().out.endswith("and so are lineage, decision, journal, signature.\n")
    assert registry.load("tiny") is not None
    monkeypatch.delenv("CLINPROMPT_VERIFICATION_KEY")
    assert main(["verify", "tiny"]) == 0
    assert capsys.readouterr().out.endswith("It is signed, and no key was given to check that by.\n")
    assert main(["verify", "tiny-candidate", "--version", "1"]) == 0
    assert capsys.readouterr().out.endswith("It is not signed.\n")
    keys("another")
    connect().set_model_version_tag("tiny", "2", "signature", "AAAA")
    with pytest.raises(InputCorrupt, match="was not signed with the key"):
        registry.load("tiny")
