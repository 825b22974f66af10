"""Patients get names that only the owner of a key can make; everything else is the same whatever the key."""

import hashlib
import hmac
import json
import logging
import os
import stat
import threading
from pathlib import Path

import pandas as pd
import pytest
from ingest_workspace import ROOT, Workspace

from clinprompt.data.manifest import key_fingerprint_of, read_manifest, write_manifest
from clinprompt.data.patient_ids import PatientKey, key_file, patient_key, public_id
from clinprompt.errors import BadParams, InputMissing
from components.lock.__main__ import work as lock
from components.runner import execute

KEY, OTHER = "k" * 40, "another key of more than 32 characters"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of configurations, where nobody has named a key."""
    for name in ("CLINPROMPT_PATIENT_KEY", "CLINPROMPT_PATIENT_KEY_FILE", "CLINPROMPT_AIRFLOW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def patients(place: Workspace) -> Workspace:
    """Twenty patients with two images each in both classes, which a rule splits."""
    rows = []
    for patient in range(20):
        for shot in range(2):
            path = f"{patient}-{shot}.png"
            place.image(path)
            rows.append({"path": path, "label": patient % 2, "pid": f"MRN{patient:03d}"})
    pd.DataFrame(rows).to_csv(place.data / "manifest.csv", index=False)
    place.card(
        reader={"kind": "table"},
        split={"rule": "stratified"},
        metadata={"patient": "pid"},
    )
    return place


def ingested(place: Workspace, monkeypatch: pytest.MonkeyPatch, key: str) -> pd.DataFrame:
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", key)
    assert place.ingest() == 0
    return place.manifest()


def test_another_key_gives_other_ids_and_the_same_splits(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    one, other = (ingested(patients, monkeypatch, key) for key in (KEY, OTHER))
    assert not set(one["patient"]) & set(other["patient"])
    pd.testing.assert_frame_equal(one.drop(columns="patient"), other.drop(columns="patient"))
    assert one.groupby("patient")["split"].nunique().max() == 1
    assert one["patient"].nunique() == 20
    assert one["split"].nunique() == 3
    expected = hmac.new(KEY.encode(), b"patient:toy:MRN003", hashlib.sha256).hexdigest()[:16]
    assert one.set_index("path").loc["3-0.png", "patient"] == expected
    assert not config.exists()


def test_ids_can_not_be_found_out_without_the_key(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    made = set(ingested(patients, monkeypatch, KEY)["patient"])
    listed = {public_id("toy", f"MRN{number:03d}") for number in range(1000)}
    assert not made & listed
    text = (patients.folder / "out" / "manifest.parquet").read_bytes()
    assert b"MRN" not in text


def test_the_key_stands_in_nothing_that_is_written_or_said(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_key = ingested(patients, monkeypatch, KEY)
    assert len(with_key)
    said = capsys.readouterr()
    assert KEY not in said.out + said.err + repr(patient_key())
    for file in (patients.folder / "out").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
    fingerprint = json.loads(said.out.splitlines()[-1])["key_fingerprint"]
    assert fingerprint == PatientKey(KEY).fingerprint == key_fingerprint_of(patients.folder / "out/manifest.parquet")


def test_a_key_is_made_on_first_use_for_this_user_alone_and_then_kept(
    patients: Workspace, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert patients.ingest() == 0
    file = config / "clinprompt" / "patient.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["patient.key"]
    assert str(file) in caplog.text
    key = file.read_text().strip()
    assert len(key) == 64
    assert key not in caplog.text
    first, _ = patients.manifest(), caplog.clear()
    assert patients.ingest() == 0
    pd.testing.assert_frame_equal(patients.manifest(), first)
    assert "was made" not in caplog.text
    assert "can be read by others" not in caplog.text
    file.chmod(0o640)
    assert patients.ingest() == 0
    assert f"chmod 600 {file}" in caplog.text


def test_first_uses_at_once_share_one_key(config: Path) -> None:
    keys: list[PatientKey] = []
    gate = threading.Barrier(8)

    def use() -> None:
        gate.wait()
        keys.append(patient_key())

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert len(os.listdir(config / "clinprompt")) == 1


@pytest.mark.parametrize("given", ["variable", "file"])
def test_a_short_key_is_refused(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    short = "x" * 31
    if given == "variable":
        monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", short)
    else:
        monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", str(config.parent / "key"))
        (config.parent / "key").write_text(f"{short}\n")
    assert patients.ingest() == 64
    said = capsys.readouterr()
    message = json.loads(said.out)["message"]
    assert "at least 32 characters, found 31" in message
    assert short not in said.out + said.err


def test_a_file_that_is_named_must_be_there(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", str(config / "mounted"))
    assert patients.ingest() == 66
    assert f"names {config / 'mounted'}, which does not exist" in json.loads(capsys.readouterr().out)["message"]
    config.mkdir()
    (config / "mounted").write_text(f"{KEY}\n")
    assert patient_key() == PatientKey(KEY)


def test_a_key_that_is_no_text_is_refused(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    config.mkdir()
    (config / "key").write_bytes(b"\xff" * 64)
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", str(config / "key"))
    with pytest.raises(BadParams, match="must be text"):
        patient_key()
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", str(config / "none"))
    with pytest.raises(InputMissing):
        patient_key()


def test_a_scheduled_task_makes_no_key(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLINPROMPT_AIRFLOW", "{}")
    assert patients.ingest() == 64
    assert "set CLINPROMPT_PATIENT_KEY for the tasks" in json.loads(capsys.readouterr().out)["message"]
    assert not config.exists()
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", KEY)
    assert patients.ingest() == 0


def test_where_no_key_can_be_kept_the_variables_are_named(
    patients: Workspace, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("a file where the folder should be")
    assert patients.ingest() == 66
    message = json.loads(capsys.readouterr().out)["message"]
    assert "can't be kept in" in message
    assert "set CLINPROMPT_PATIENT_KEY" in message


def test_a_user_without_a_home_is_told_of_the_variables(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "~nobody-of-this-name/.config")
    with pytest.raises(InputMissing, match="no home.*CLINPROMPT_PATIENT_KEY_FILE"):
        patient_key()


def test_without_patients_no_key_is_needed(place: Workspace, config: Path) -> None:
    place.published()
    assert place.ingest() == 0
    assert not config.exists()
    assert key_fingerprint_of(place.folder / "out" / "manifest.parquet") is None


def test_public_ids_are_the_same_everywhere(patients: Workspace, monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    secret = ingested(patients, monkeypatch, KEY)
    monkeypatch.delenv("CLINPROMPT_PATIENT_KEY")
    patients.card(
        reader={"kind": "table"}, split={"rule": "stratified"}, metadata={"patient": "pid"}, patient_ids="public"
    )
    assert patients.ingest() == 0
    file = patients.folder / "out" / "manifest.parquet"
    public = read_manifest(file)
    assert public.set_index("path").loc["3-0.png", "patient"] == public_id("toy", "MRN003")
    pd.testing.assert_frame_equal(public.drop(columns="patient"), secret.drop(columns="patient"))
    assert key_fingerprint_of(file) is None
    assert not config.exists()


def test_every_repro_says_where_the_key_is_another_than_the_manifest_s(
    patients: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frame, runs = ingested(patients, monkeypatch, KEY), patients.folder / "runs"
    monkeypatch.chdir(ROOT)
    manifest = runs / "brain-phantom" / "ingest" / "manifest.parquet"
    manifest.parent.mkdir(parents=True)
    write_manifest(frame, manifest, key_fingerprint=PatientKey(KEY).fingerprint)
    outputs = ["--sources", str(runs / "sources.lock"), "--settings", str(runs / "settings.lock")]
    for key, told in ((KEY, 0), (OTHER, 1)):
        monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", key)
        assert execute("lock", lock, outputs, ROOT / "components") == 0
        assert caplog.text.count("each patient gets another id") == told
    assert OTHER not in caplog.text


def test_a_key_is_the_same_whatever_editor_wrote_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
    assert patient_key() == PatientKey(KEY)


@pytest.mark.parametrize("text", [b"\x00" * 64, KEY.encode() + b"\n" + KEY.encode()])
def test_a_file_of_zeros_or_of_several_lines_is_no_key(
    text: bytes, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(BadParams, match="one line of printable characters"):
        patient_key()


def test_a_variable_that_is_no_text_is_no_key(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINPROMPT_PATIENT_KEY", os.fsdecode(b"\xff" * 40))
    with pytest.raises(BadParams, match="one line of printable characters"):
        patient_key()


def test_a_key_is_never_made_in_the_folder_one_works_in(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", ".config")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert key_file() == tmp_path / "home" / ".config" / "clinprompt" / "patient.key"
