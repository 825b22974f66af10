"""The signature of a registered model: made by the promoter, checked by who has the public key."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabricate import Run, promote
from model_signing import hashing, signing
from signing_keys import new_pair

import registry
from clinprompt.errors import BadParams, InputCorrupt
from clinprompt.files import remove, sha256_file, write_json
from registry import api, signature, tracking
from registry.__main__ import main
from registry.keys import PrivateKey
from registry.model_folder import FILES_TAG, LEFT_BY_MLFLOW, PAYLOAD, digests_tag

Keys = Callable[[str], Path]
OF_THE_EARLIER = base64.b64encode(b"x" * 64).decode()  # as Ed25519's were kept


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Makes a pair of keys, and names it to this process; the public one's path."""

    def make(name: str) -> Path:
        private, public = new_pair(tmp_path / name)
        monkeypatch.setenv("CLINPROMPT_SIGNING_KEY", str(private))
        monkeypatch.setenv("CLINPROMPT_VERIFICATION_KEY", str(public))
        return public

    return make


@pytest.fixture
def signed(run: Run, keys: Keys) -> Path:
    """The stored files of a version that is signed."""
    keys("mine")
    assert main(["sign", "tiny"]) == 0
    folder = next(run.root.glob("mlartifacts/models/*/artifacts"))
    for name in LEFT_BY_MLFLOW:  # by a test that loads the model without this repository
        remove(folder / name)
    return folder


def tag(key: str = "signature", name: str = "tiny", version: str = "1") -> str:
    return str(tracking.connect().get_model_version(name, version).tags[key])


def set_tag(value: str, key: str = "signature") -> None:
    tracking.connect().set_model_version_tag("tiny", "1", key, value)


def statement(text: str) -> Any:
    """What a bundle says."""
    return json.loads(base64.b64decode(json.loads(text)["dsseEnvelope"]["payload"]))


def change_along(stored: Path, name: str, data: bytes) -> None:
    """Write a file of a stored model, and all digests as if it had been registered so."""
    (stored / name).write_bytes(data)
    payload = stored / PAYLOAD
    if (stored / name).is_relative_to(payload):
        manifest = json.loads((payload / "manifest.json").read_text())
        manifest["files"][(stored / name).relative_to(payload).as_posix()] = sha256_file(stored / name)
        write_json(payload / "manifest.json", manifest)
    set_tag(sha256_file(payload / "manifest.json"), "payload_digest")
    set_tag(digests_tag(stored), FILES_TAG)


def public_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_promotion_signs_and_consumers_refuse_what_is_not(
    challenged: Run, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys("mine")
    with pytest.raises(InputCorrupt, match="Version 1 of 'tiny' is not signed, and CLINPROMPT_VERIFICATION_KEY asks"):
        registry.load("tiny")  # it was promoted before there was a key
    assert promote(challenged) == 67  # nor is it compared with
    assert main(["sign", "tiny"]) == 0
    assert promote(challenged) == 0
    text = tag(version="2")
    assert text == tag(name="tiny-candidate", version="2")
    signer = f"key {json.loads(text)['verificationMaterial']['publicKey']['hint']}"
    capsys.readouterr()
    assert main(["verify", "tiny"]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"and so are lineage, decision, journal, signature. It is signed by {signer}.\n")
    assert registry.load("tiny") is not None
    assert main(["show", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert signer in shown
    assert "dsseEnvelope" not in shown
    assert api.diff("tiny", 1, 2)["lineage"].keys() & {"signature", "signature_key"} == set()
    monkeypatch.delenv("CLINPROMPT_VERIFICATION_KEY")
    assert main(["verify", "tiny"]) == 0
    assert capsys.readouterr().out.endswith(f"It is signed by {signer}, and no key was given to check that by.\n")
    assert main(["verify", "tiny-candidate", "--version", "1"]) == 0
    assert capsys.readouterr().out.endswith("It is not signed.\n")
    assert (api.verify("tiny")["signer"], api.verify("tiny", 2)["signed"]) == (signer, True)
    keys("another")
    with pytest.raises(InputCorrupt, match="Version 2 of 'tiny' was not signed with the key .*, but with another"):
        registry.load("tiny")


def test_what_is_refused_as_it_is_tried_out_is_not_signed(
    challenged: Run, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys("mine")
    assert main(["sign", "tiny"]) == 0
    monkeypatch.setattr("registry.verify.TOLERANCE", -1.0)
    assert promote(challenged) == 67
    client = tracking.connect()
    newest = {name: client.search_model_versions(f"name='{name}'")[0] for name in ("tiny", "tiny-candidate")}
    assert {name: version.version for name, version in newest.items()} == {"tiny": 2, "tiny-candidate": 2}
    assert not any("signature" in version.tags for version in newest.values())


def test_the_statement_lists_each_file_and_a_name_that_stays(signed: Path) -> None:
    files = {path.relative_to(signed).as_posix(): path for path in signed.rglob("*") if path.is_file()}
    said = statement(tag())
    listed = {one["name"]: one["digest"] for one in said["predicate"]["resources"]}
    assert listed == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert [one["name"] for one in said["subject"]] == ["model"]
    assert "ignore_paths" not in said["predicate"]["serialization"]


@pytest.mark.parametrize(
    "name", [f"{PAYLOAD}/head.safetensors", f"{PAYLOAD}/code/.gitignore", "conda.yaml", ".git/config", ".gitattributes"]
)
def test_a_file_that_was_changed_or_added_along_with_its_digests_is_refused(signed: Path, name: str) -> None:
    assert registry.champion("tiny").model_folder is not None  # type: ignore[union-attr]
    (signed / name).parent.mkdir(exist_ok=True)
    change_along(signed, name, b"other")
    with pytest.raises(
        InputCorrupt, match="Version 1 of 'tiny' was not signed with the key .* with the files that it has"
    ):
        registry.load("tiny")


def cut(text: str) -> str:
    return text[: len(text) // 2]


def without_hint(text: str) -> str:
    bundle = json.loads(text)
    del bundle["verificationMaterial"]["publicKey"]["hint"]
    return json.dumps(bundle)


def with_other_payload(text: str) -> str:
    bundle, said = json.loads(text), statement(text)
    said["predicate"]["resources"][0]["name"] = "another"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    return json.dumps(bundle)


def unsigned(text: str) -> str:
    bundle = json.loads(text)
    bundle["dsseEnvelope"]["signatures"] = []
    return json.dumps(bundle)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut, "Version 1 of 'tiny' has a signature that can't be read"),
        (lambda _: "[" * 90_000, "can't be read"),
        (lambda _: "{}", "can't be read"),
        (lambda _: "no JSON", "can't be read"),
        (without_hint, "can't be read"),
        (with_other_payload, "with the files that it has"),
        (unsigned, "with the files that it has"),
        (lambda _: OF_THE_EARLIER, "earlier release, .* sign it again with `python -m registry sign tiny --version 1`"),
    ],
)
def test_a_changed_signature_is_refused(
    signed: Path, capsys: pytest.CaptureFixture[str], change: Callable[[str], str], says: str
) -> None:
    set_tag(change(tag()))
    capsys.readouterr()
    with pytest.raises(InputCorrupt, match=says):
        registry.load("tiny")
    assert main(["verify", "tiny", "--json"]) == 67
    assert main(["show", "tiny"]) == 0
    assert "dsseEnvelope" not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["another model", "left out", "shards", "blake3"])
def test_a_statement_of_the_right_key_that_says_less_is_refused(signed: Path, tmp_path: Path, what: str) -> None:
    folder, how = tmp_path / "model", hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    folder.mkdir()
    if what == "left out":
        change_along(signed, "evil.py", b"other")
        how.set_ignored_paths(paths=["evil.py"])
    elif what == "shards":
        how.use_shard_serialization(shard_size=1_000_000)
    elif what == "blake3":
        how.use_file_serialization(hashing_algorithm="blake3")
    else:
        (folder / "MLmodel").write_text("another")
    config = signing.Config().set_hashing_config(how).use_elliptic_key_signer(private_key=tmp_path / "mine.key")
    config.sign(folder if what == "another model" else signed, tmp_path / "bundle")
    set_tag((tmp_path / "bundle").read_text())
    with pytest.raises(InputCorrupt, match="with the files that it has"):
        registry.load("tiny")


def test_what_an_earlier_release_signed_is_signed_again(run: Run, keys: Keys) -> None:
    keys("mine")
    set_tag(OF_THE_EARLIER)
    set_tag("0" * 64, "signature_key")
    with pytest.raises(InputCorrupt, match="is signed in the form of an earlier release"):
        registry.load("tiny")
    assert main(["sign", "tiny"]) == 0
    assert registry.load("tiny") is not None
    assert "signature_key" not in tracking.connect().get_model_version("tiny", "1").tags


def test_the_public_tool_verifies_an_export(
    signed: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["export", "tiny", str(out), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["signature"], done["signer"].split()[0]) == (f"{out}.sig", "key")
    asked = ["verify", "key", str(out), "--signature", f"{out}.sig", "--public_key", str(tmp_path / "mine.pub")]
    checked = public_tool(*asked)
    assert (checked.returncode, checked.stdout.strip()) == (0, "Verification succeeded")
    (out / "conda.yaml").write_text("other")
    assert public_tool(*asked).returncode == 1
    with pytest.raises(BadParams, match=r"out exists; name a new folder"):
        api.export("tiny", out)
    (tmp_path / "next.sig").write_text("mine")
    with pytest.raises(BadParams, match=r"next\.sig exists; name a new folder"):
        api.export("tiny", tmp_path / "next")
    assert (tmp_path / "next.sig").read_text() == "mine"
    monkeypatch.delenv("CLINPROMPT_VERIFICATION_KEY")
    set_tag(OF_THE_EARLIER)
    assert api.export("tiny", tmp_path / "bare")["signature"] is None
    assert not (tmp_path / "bare.sig").exists()


def test_a_failed_export_leaves_neither(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    replace = os.replace
    for name in ("out.sig", "out"):  # the last step of each
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "replace", lambda source, to, name=name: full() if to.name == name else replace(source, to)
            )
            with pytest.raises(OSError, match="No space"):
                api.export("tiny", tmp_path / "out")
    assert not {path.name for path in tmp_path.iterdir()} & {"out", "out.sig", ".out.partial", ".out.sig.partial"}


def test_a_signature_that_mlflow_would_not_keep_is_refused(tmp_path: Path) -> None:
    private, _ = new_pair(tmp_path / "key")
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(600):
        (folder / f"file-{number}").touch()
    with pytest.raises(BadParams, match="of a model of 600 files has .* characters, and MLflow keeps 100000"):
        signature.made(folder, PrivateKey(private))


@pytest.mark.slow
def test_without_a_key_nothing_of_it_is_imported_and_with_one_no_server_is_asked(
    run: Run, tmp_path: Path, root: Path
) -> None:
    program = """
import json, os, socket, sys
from registry.__main__ import main
assert main(["list"]) == 0 and main(["verify", "tiny"]) == 0
found = {"model_signing", "sigstore", "tuf"} & set(sys.modules)
assert not found, found

def none(*_, **__):
    raise AssertionError("a server was asked")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = none
os.environ |= {"CLINPROMPT_SIGNING_KEY": sys.argv[1], "CLINPROMPT_VERIFICATION_KEY": sys.argv[2]}
assert main(["sign", "tiny"]) == 0 and main(["verify", "tiny"]) == 0
assert "sigstore" in sys.modules
"""
    private, public = new_pair(tmp_path / "key")
    command = [sys.executable, "-c", program, str(private), str(public)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=run.root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "journal, signature. It is signed by key" in done.stdout
