"""Signatures of identities, without a key of one's own: made by an instance of sigstore's that is on this machine."""

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricate import Run
from fake_sigstore import ISSUER, Sigstore, identity_token, running
from signing_keys import new_pair

import registry
from clinprompt.errors import BadParams, InputCorrupt, ServiceDown
from registry import api, tracking
from registry.__main__ import main

ME = "me@example.org"
Settings = Callable[..., None]


@pytest.fixture
def sigstore() -> Iterator[Sigstore]:
    """An instance that answers."""
    with running() as instance:
        yield instance


@pytest.fixture
def keyless(run: Run, sigstore: Sigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Names the instance, a token in a file and who must have signed; by default all fit."""
    trust = sigstore.write_trust_config(tmp_path / "trust.json")

    def write(token: str | None = None, identity: str = ME, issuer: str = ISSUER, **more: Any) -> None:
        (tmp_path / "token").write_text(identity_token(ME) if token is None else token)
        waits = {"answers_within": more.pop("answers_within")} if "answers_within" in more else {}
        instance = {"trust_config": str(trust)} | more
        asks: dict[str, dict[str, Any]] = {"CLINPROMPT_SIGNING_KEY": {"token_file": "token"} | waits}
        asks["CLINPROMPT_VERIFICATION_KEY"] = {"identity": identity, "issuer": issuer}
        for variable, value in asks.items():
            (tmp_path / f"{variable}.json").write_text(json.dumps({"sigstore": value | instance}))
            monkeypatch.setenv(variable, str(tmp_path / f"{variable}.json"))

    write()
    return write


def bundle() -> str:
    return str(tracking.connect().get_model_version("tiny", "1").tags["signature"])


def test_an_identity_signs_and_is_checked(
    keyless: Settings, sigstore: Sigstore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sign", "tiny"]) == 0
    sigstore.asked.clear()
    assert registry.load("tiny") is not None
    done = api.verify("tiny")
    assert (done["signer"], done["checks"][-1]) == (f"identity {ME} ({ISSUER})", "signature")
    assert sigstore.asked == []  # what is needed is in the trust config
    assert main(["show", "tiny"]) == 0
    assert f"identity {ME} ({ISSUER})" in capsys.readouterr().out
    api.export("tiny", tmp_path / "out")
    command = [
        sys.executable, "-m", "model_signing", "verify", "sigstore", str(tmp_path / "out"),
        "--signature", str(tmp_path / "out.sig"), "--identity", ME, "--identity_provider", ISSUER,
        "--trust_config", str(tmp_path / "trust.json"),
    ]  # fmt: skip
    assert "Verification succeeded" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_is_sent_is_the_token_for_a_certificate_and_the_statement_for_the_log(
    keyless: Settings, sigstore: Sigstore, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    token = identity_token(ME)
    keyless(token)
    with caplog.at_level(logging.DEBUG):
        assert main(["sign", "tiny"]) == 0
    paths = [path for path, _, _ in sigstore.asked]
    assert paths == ["/.well-known/openid-configuration", "/api/v2/signingCert", "/api/v1/log/entries"]
    with_token = [path for path, body, headers in sigstore.asked if token in body + headers]
    assert with_token == ["/api/v2/signingCert"]
    certificate, entry = (json.loads(body) for _, body, _ in sigstore.asked[1:])
    assert certificate.keys() == {"certificateSigningRequest"}
    assert entry["spec"]["proposedContent"].keys() == {"envelope", "verifiers"}
    assert json.loads(entry["spec"]["proposedContent"]["envelope"]) == json.loads(bundle())["dsseEnvelope"]
    kept = capfd.readouterr()
    assert token not in caplog.text + kept.out + kept.err + bundle()


def test_another_s_signature_is_refused(
    keyless: Settings, sigstore: Sigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyless(identity_token("eve@example.org"))
    assert main(["sign", "tiny"]) == 67  # it is checked before it is kept
    assert "signature" not in tracking.connect().get_model_version("tiny", "1").tags
    keyless()
    assert main(["sign", "tiny"]) == 0
    keyless(identity="eve@example.org")
    with pytest.raises(
        InputCorrupt, match=rf"was not signed by eve@example.org \({ISSUER}\), but by {ME} \({ISSUER}\)"
    ):
        registry.load("tiny")
    keyless(issuer="https://another.example")
    with pytest.raises(InputCorrupt, match=r"was not signed by me@example.org \(https://another.example\)"):
        registry.load("tiny")
    keyless(trust_config=str(Sigstore(sigstore.uri).write_trust_config(tmp_path / "other.json")))
    with pytest.raises(InputCorrupt, match=rf"was not signed by {ME} \({ISSUER}\) with the files that it has"):
        registry.load("tiny")
    private, public = new_pair(tmp_path / "key")
    monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", str(public))
    with pytest.raises(InputCorrupt, match=rf"was not signed with the key .*, but by {ME}"):
        registry.load("tiny")
    monkeypatch.setenv("CLINPROMPT_SIGNING_KEY", str(private))
    assert main(["sign", "tiny"]) == 0
    keyless()
    with pytest.raises(InputCorrupt, match=rf"was not signed by {ME} .*, but with a key"):
        registry.load("tiny")


def test_a_changed_bundle_is_refused(keyless: Settings) -> None:
    assert main(["sign", "tiny"]) == 0
    value = json.loads(bundle())
    [entry] = value["verificationMaterial"]["tlogEntries"]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)
    tracking.connect().set_model_version_tag("tiny", "1", "signature", json.dumps(value))
    with pytest.raises(InputCorrupt, match="with the files that it has"):
        registry.load("tiny")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: "", "holds no identity token that can be used"),
        (lambda: "a secret", "holds no identity token that can be used"),
        (lambda: identity_token(ME, audience="another"), "for the audience 'sigstore'"),
        (lambda: identity_token(ME, lives=-30), "has expired"),
    ],
    ids=["empty", "no-token", "audience", "expired"],
)
def test_a_token_that_is_none_is_not_sent(
    keyless: Settings, sigstore: Sigstore, capfd: pytest.CaptureFixture[str], made: Callable[[], str], says: str
) -> None:
    token = made()  # only now: it lives for minutes
    keyless(token)
    assert main(["sign", "tiny"]) == 67
    said = capfd.readouterr()
    assert says in said.err
    assert token == "" or token not in said.err + said.out
    assert sigstore.asked == []


def test_an_instance_that_refuses_or_is_away_has_its_exit_code(
    keyless: Settings, sigstore: Sigstore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    token = identity_token(ME)
    keyless(token)
    for status, code, says in ((401, 64, "can't be used (127.0.0.1: HTTP 401)"), (503, 69, "does not answer")):
        sigstore.answers_with = status
        assert main(["sign", "tiny"]) == code
        said = capfd.readouterr()
        assert says in said.err
        assert token not in said.err + said.out
    (tmp_path / "other.json").write_text('{"mediaType": "text"}')
    keyless(trust_config="other.json")
    with pytest.raises(BadParams, match=r"other\.json is no client trust config of a sigstore instance"):
        api.sign("tiny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = Sigstore(f"http://127.0.0.1:{free.getsockname()[1]}")
    keyless(trust_config=str(away.write_trust_config(tmp_path / "away.json")))
    with pytest.raises(ServiceDown, match=r"The sigstore instance of .*away\.json does not answer"):
        api.sign("tiny")


@pytest.mark.parametrize("silent", ["/signingCert", "/log/entries"])
def test_an_instance_that_takes_a_request_and_never_answers_is_not_waited_for(
    keyless: Settings, sigstore: Sigstore, capfd: pytest.CaptureFixture[str], silent: str
) -> None:
    keyless(answers_within=1)
    sigstore.silent = silent
    assert main(["sign", "tiny"]) == 69
    assert "trust.json does not answer (within 1 s). Try again later." in capfd.readouterr().err
    assert sigstore.asked[-1][0].endswith(silent)
    assert "signature" not in tracking.connect().get_model_version("tiny", "1").tags
    sigstore.silent = None
    keyless()
    assert main(["sign", "tiny"]) == 0  # the turn was given back


def test_the_public_instance_is_asked_for_its_keys(
    keyless: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sign", "tiny"]) == 0

    def none(*_: object, **__: object) -> None:
        raise OSError("there is no network")

    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # the client keeps there what it was told
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", none)
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "public.json").write_text(json.dumps({"sigstore": {"identity": ME, "issuer": ISSUER}}))
    monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", str(tmp_path / "public.json"))
    with pytest.raises(ServiceDown, match="The public sigstore instance does not answer"):
        registry.load("tiny")
