"""What can be asked of a registered version: whether it is what was registered, where it comes from, what differs."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fabricate import Run, promote

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes, sha256_file
from clinprompt.tuned.record import ModelRecord
from registry import api, lineage, listing, reproduction
from registry.__main__ import app, main
from registry.tracking import connect


def told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    """What a command prints as JSON."""
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_version_is_verified_with_lineage_decision_and_journal(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    done = told(capsys, "verify", "tiny")
    assert (done["version"], done["checks"]) == (1, ["files", "lineage", "decision", "journal"])
    assert done == api.verify("tiny", 1)
    assert api.verify("tiny-candidate", "1")["checks"] == ["files", "lineage", "decision"]
    with pytest.raises(InputMissing, match="There is no version 7 of 'tiny'"):
        api.verify("tiny", 7)
    connect().set_model_version_tag("tiny", "1", "seed", "2")
    with pytest.raises(InputCorrupt, match=r"The tag 'seed' of version 1 of 'tiny' is not what its lineage\.json says"):
        api.verify("tiny")


def test_a_version_that_was_promoted_with_another_payload_is_not_verified(run: Run) -> None:
    entry = run.root / "mlflow.db.journal" / "tiny" / "journal" / "00000001.json"
    value = json.loads(entry.read_text())
    value["after"]["payload"] = "0" * 64
    entry.write_text(json.dumps(value))
    with pytest.raises(InputCorrupt, match="Version 1 of 'tiny' was promoted with another payload"):
        api.verify("tiny")


def test_the_lineage_tells_who_promoted_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "lineage", "tiny")
    assert found["lineage"]["decision_digest"] == sha256_file(run.decision)
    assert [(one["entry"], one["operation"]) for one in found["journal"]] == [(1, "promote")]
    assert found["registered"]["candidate_model"] == "tiny-candidate"
    assert main(["lineage", "tiny"]) == 0
    assert "decision_digest" in capsys.readouterr().out


def test_two_versions_differ_in_what_is_told(challenged: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert promote(challenged) == 0
    capsys.readouterr()
    found = told(capsys, "diff", "tiny", "previous", "champion")
    assert found["versions"] == [1, 2]
    assert found["lineage"]["seed"] == found["params"]["seed"] == ["1", "2"]
    assert "backbone_digest" not in found["lineage"]
    assert found["metrics"]
    assert main(["diff", "tiny", "1", "2"]) == 0
    assert "1 | 2" in capsys.readouterr().out
    same = api.diff("tiny", 2, "champion")
    assert (same["lineage"], same["params"], same["metrics"]) == ({}, {}, {})


def test_a_version_is_exported_whole_and_only_to_a_new_folder(run: Run, tmp_path: Path) -> None:
    assert main(["export", "tiny", str(tmp_path / "model")]) == 0
    assert (tmp_path / "model" / "MLmodel").is_file()
    assert sha256_file(tmp_path / "model" / "artifacts" / "record" / "decision.json") == sha256_file(run.decision)
    with pytest.raises(BadParams, match="exists; name a new folder"):
        api.export("tiny", tmp_path / "model")
    stored = Path(connect().get_model_version_download_uri("tiny", "1").removeprefix("file://"))
    (stored / "artifacts" / "payload" / "head.safetensors").write_bytes(b"other")
    with pytest.raises(InputCorrupt, match="was changed after registration"):
        api.export("tiny", tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_a_version_predicts_in_a_clean_process(run: Run) -> None:
    rows = api.serve_check("tiny")["rows"]
    assert sum(rows[0][f"p_{label}"] for label in ("bright", "dark", "grey")) == pytest.approx(1)


def registered(name: str, **tags: str) -> int:
    """Register a version by hand, which nothing names."""
    client, source = connect(), "models:/tiny-candidate/1"
    run_id = client.get_model_version("tiny", "1").run_id
    made = client.create_model_version(name, source, run_id=run_id, tags={"payload_digest": "other"} | tags)
    return int(made.version)


def test_only_what_nothing_names_is_collected(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tiny", "tiny-candidate"):
        registered(name)
    before = listing.models()
    assert told(capsys, "gc", "tiny")["versions"] == {"tiny": [2], "tiny-candidate": [2]}
    assert listing.models() == before
    assert main(["gc", "tiny", "--delete"]) == 0
    assert "tiny: deleted: versions 2" in capsys.readouterr().out
    assert [[one["version"] for one in model["versions"]] for model in listing.models()] == [[1], [1]]
    assert main(["gc", "tiny"]) == 0
    assert "Every version is named" in capsys.readouterr().out


def test_each_thing_that_keeps_a_version_keeps_it_alone(run: Run) -> None:
    client = connect()
    lineages = [
        {"candidate_model": "tiny-candidate", "candidate_version": str(registered("tiny-candidate"))} for _ in range(3)
    ]
    aliased, journalled = registered("tiny"), registered("tiny")
    held = registered("tiny", quarantined="true", **lineages[0])
    promoted = registered("tiny", promoted_at="2026-01-31T12:00:00+00:00")
    loose = registered("tiny", **lineages[1])
    client.create_registered_model("other")
    registered("other", **lineages[2])
    client.set_registered_model_alias("tiny", "mine", str(aliased))
    for number in (journalled, 1):  # the champion for a while, past the protocol; the journal follows
        client.set_registered_model_alias("tiny", "champion", str(number))
        assert api.unquarantine("tiny", 1, "no reason")["action"] == "unchanged"
    assert api.gc("tiny", delete=True)["versions"] == {"tiny": [loose], "tiny-candidate": [3]}
    left = {model["name"]: sorted(one["version"] for one in model["versions"]) for model in listing.models()}
    assert left == {"tiny": [1, aliased, journalled, held, promoted], "tiny-candidate": [1, 2, 4], "other": [1]}


def test_programs_have_each_verb_by_its_name() -> None:
    commands = {(command.name or "").replace("-", "_") for command in app.registered_commands}
    assert commands <= set(api.__all__)
    assert all(callable(getattr(api, name)) for name in commands)


def test_an_error_is_a_line_of_json_too_and_leaves_nothing_of_a_misspelt_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((reproduction.ROOT / "params.yaml").read_bytes())
    options = {
        "diff": ["1", "2"], "export": ["x", "--version", "2"], "reproduce": ["x", "--version", "2"],
        "rollback": ["--reason", "bad"], "unquarantine": ["--reason", "good", "--version", "1"], "gc": ["--delete"],
        "verify": ["--version", "2"], "lineage": ["--version", "2"], "serve-check": ["--version", "2"],
    }  # fmt: skip
    for command in ("show", "load", "sign", *options):
        assert main([command, "nosuch", *options.get(command, []), "--json"]) == 66
        said = json.loads(capsys.readouterr().out)
        assert (said["status"], said["exit_code"]) == ("input_missing", 66)
        assert "nosuch" in said["message"]
    for command in (["push-results"], ["pull-results", "x"], ["promote", "nosuch"]):
        assert main([*command, "--json"]) == 66
        assert json.loads(capsys.readouterr().out)["exit_code"] == 66
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_journal_that_is_gone_is_never_taken_for_checked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    journal = run.root / "mlflow.db.journal"
    journal.rename(run.root / "kept")
    assert main(["verify", "tiny"]) == 66
    assert "was promoted at" in capsys.readouterr().err
    assert api.verify("tiny-candidate", 1)["not_checked"] == {}  # candidates are in no journal
    api.unquarantine("tiny", 1, "no reason")  # begins another with the champion that it finds
    assert api.verify("tiny")["checks"][-1] == "journal"
    entry = journal / "tiny" / "journal" / "00000001.json"
    value = json.loads(entry.read_text())
    entry.write_text(json.dumps(value | {"after": None}))
    done = api.verify("tiny")
    assert "journal" not in done["checks"]
    assert "and the journal begins at" in done["not_checked"]["journal"]
    assert main(["verify", "tiny"]) == 0
    assert "NOT CHECKED: the journal: it was promoted at" in capsys.readouterr().out
    entry.write_text(json.dumps(value | {"after": None, "at": "2020-01-31T12:00:00+00:00"}))
    with pytest.raises(InputCorrupt, match="no entry of the journal at .* names it: don't use this model"):
        api.verify("tiny")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


LOCK = """schema: '2.0'
stages:
  ingest@tiny:
    cmd: python -m components.ingest --dataset tiny
    outs:
    - {path: data/tiny, hash: md5, md5: 0123456789abcdef0123456789abcdef.dir}
"""


@pytest.fixture
def project(tmp_path: Path, finished: Run) -> Path:
    """A git clone with what a promotion holds against its commit."""
    folder = tmp_path / "project"
    for name in ("datasets/tiny.yaml", "requirements/components.txt"):
        (folder / name).parent.mkdir(parents=True)
        root = finished.root if name.startswith("datasets") else reproduction.ROOT
        (folder / name).write_bytes((root / name).read_bytes())
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_the_workspace_of_a_training_is_made_again(
    finished: Run, fresh_copy: Callable[[Run], Run], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, commit = fresh_copy(finished), git(project, "rev-parse", "HEAD")
    monkeypatch.setattr(lineage, "git_commit", lambda: commit)
    table = run.folder / "describe" / "descriptions.parquet"
    model = run.folder / "tune" / "coop-1" / "model.yaml"
    taught = ModelRecord.read(model).model_copy(update={"knowledge": {table.name: sha256_file(table)}})
    taught.write(model)
    run.evaluate_again("coop", 1)
    run.decide("coop-1", "zero_shot-1")
    texts = {"params.yaml": (run.root / "params.yaml").read_text(), "dvc.lock": LOCK, "infra/images.lock": "data: {}\n"}
    (run.root / "infra").mkdir(exist_ok=True)
    for name, text in texts.items():
        (run.root / name).write_text(text)
    assert promote(run) == 0
    told = api.lineage("tiny")["lineage"]
    assert told["release_digest"] == "0123456789abcdef0123456789abcdef.dir"
    assert told["dvc_lock_digest"] == sha256_bytes(LOCK.encode())
    assert api.verify("tiny")["checks"] == ["files", "lineage", "decision", "journal"]
    again = tmp_path / "again"
    done = reproduction.reproduce("tiny", again, project=project)
    assert (done["commit"], done["checked"]) == (commit, ["requirements/components.txt", "datasets/tiny.yaml"])
    assert {name: (again / name).read_text() for name in texts} == texts
    assert sha256_file(again / "reproduction" / "decision.json") == sha256_file(run.decision)
    assert sha256_file(again / "reproduction" / "descriptions.parquet") == sha256_file(table)
    assert len(json.loads((again / "reproduction" / "descriptions.json").read_text())) == 3
    assert (done["restored"][:3], done["not_recorded"]) == ([*texts], [])


def test_a_training_whose_code_can_t_be_had_is_not_made_again(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, origin = {"git_commit": git(project, "rev-parse", "HEAD")}, reproduction.origin
    monkeypatch.setattr(reproduction, "origin", lambda one: {k: v for k, v in (origin(one) | facts).items() if v})
    done = reproduction.reproduce("tiny", tmp_path / "again", project=project)
    assert done["not_recorded"] == ["dvc.lock", "infra/images.lock"]  # this run had none
    (project / "datasets" / "tiny.yaml").write_text("another")
    git(project, "commit", "--quiet", "--all", "--message", "second")
    facts["git_commit"] = git(project, "rev-parse", "HEAD")
    with pytest.raises(InputCorrupt, match=r"was made with another datasets/tiny\.yaml than its commit has"):
        reproduction.reproduce("tiny", tmp_path / "other", project=project)
    for wrong, words in (("", "records no git commit"), ("0" * 40 + "-dirty", "whose changes were never committed")):
        facts["git_commit"] = wrong
        with pytest.raises(InputMissing, match=words):
            reproduction.reproduce("tiny", tmp_path / "other", project=project)
    facts["git_commit"] = "0" * 40
    with pytest.raises(BadParams, match="is no git clone that has the commit"):
        reproduction.reproduce("tiny", tmp_path / "other", project=project)
    assert not (tmp_path / "other").exists()
