"""One stage per task: run in a fresh folder, pushed, and never computed twice."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import Project

from clinprompt.contract.tasks import MAX_ENTRY_BYTES
from clinprompt.errors import BadParams, ClinpromptError, InputMissing
from workspace.records import latest_record, read_record, record
from workspace.stage import StageFailed, probe
from workspace.task import RecordTask, StageTask


def objects(project: Project) -> dict[str, Path]:
    """The objects of the DVC remote by their md5."""
    folder = Path(project.store.remote) / "files" / "md5"
    return {f"{path.parent.name}{path.name}": path for path in folder.glob("*/*")}


def test_a_stage_runs_on_the_release_and_its_outputs_are_in_the_store(project: Project, tmp_path: Path) -> None:
    settled = project.plan()
    entry, cached = project.run(settled, "ingest")
    assert not cached
    assert entry.stage == "ingest@drawn"
    assert entry.outs["data/drawn"][0] == settled.digest
    assert len(entry.model_dump_json()) <= MAX_ENTRY_BYTES
    held = objects(project)
    assert str(entry.outs["runs/drawn/ingest/manifest.parquet"][0]) in held
    assert str(entry.outs["runs/drawn/ingest/images"][0]) in held
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_next_stage_takes_its_inputs_from_the_store_and_is_not_computed_twice(project: Project) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    asked = StageTask(plan=settled, stage="validate", entries=[first])
    assert probe(asked, project.store) == {"entry": None}
    entry, cached = project.run(settled, "validate", first)
    assert not cached
    assert probe(asked, project.store) == {"entry": entry.model_dump()}
    assert project.run(settled, "validate", first) == (entry, True)


def test_a_stage_whose_outputs_vanished_from_the_store_is_computed_again(project: Project) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    entry, _ = project.run(settled, "validate", first)
    objects(project)[str(entry.outs["runs/drawn/validate/classes.json"][0])].unlink()
    assert project.run(settled, "validate", first) == (entry, False)


def test_a_stage_that_keeps_its_output_is_taken_from_the_last_record(project: Project) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    assert project.run(settled, "ingest") == (first, False)  # DVC's run cache knows no such stages
    record(RecordTask(plan=settled, entries=[first]), project.store)
    assert project.run(project.plan(), "ingest") == (first, True)
    objects(project)[str(first.outs["runs/drawn/ingest/manifest.parquet"][0])].unlink()
    assert project.run(project.plan(), "ingest") == (first, False)


def test_a_changed_param_runs_what_it_touches_and_nothing_else(project: Project) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    project.run(settled, "validate", first)
    other = project.plan(overrides={"validation": {"near_duplicate_bits": 4}})
    assert not project.run(other, "validate", first)[1]
    unrelated = project.plan(overrides={"knowledge": {"seed": 7}})
    assert project.run(unrelated, "validate", first)[1]


def test_an_object_that_is_not_what_its_name_says_is_never_computed_from(project: Project) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    path = objects(project)[str(first.outs["runs/drawn/ingest/manifest.parquet"][0])]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(ClinpromptError, match=r"runs/drawn/ingest/manifest\.parquet") as told:
        project.run(settled, "validate", first)
    assert told.value.exit_code == 67
    assert path.exists()


def test_what_a_machine_has_fetched_is_not_fetched_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    expected, _ = project.run(settled, "validate", first)
    monkeypatch.setenv("CLINPROMPT_CACHE", str(tmp_path / "cache"))
    other = project.plan(overrides={"validation": {"near_duplicate_bits": 4}})
    project.run(other, "validate", first)  # fills the cache
    digest = str(first.outs["runs/drawn/ingest/manifest.parquet"][0])
    kept = tmp_path / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    held = objects(project)[digest]
    away = held.rename(tmp_path / "away")
    third = project.plan(overrides={"validation": {"near_duplicate_bits": 5}})
    found, cached = project.run(third, "validate", first)
    assert not cached
    assert found.outs.keys() == expected.outs.keys()
    away.rename(held)
    for mode, bits in ((0o444, 6), (0o644, 7)):
        kept.chmod(0o644)
        kept.write_bytes(b"flipped")  # a disk that has gone bad: it is fetched again
        kept.chmod(mode)
        plan = project.plan(overrides={"validation": {"near_duplicate_bits": bits}})
        entry, _ = project.run(plan, "validate", first)
        assert entry.deps == expected.deps
        assert kept.read_bytes() == held.read_bytes()
    assert not list((tmp_path / "cache").glob("runs"))


def test_the_component_s_own_error_is_the_task_s(project: Project) -> None:
    def no_such_label(card: dict[str, object]) -> None:
        card["classes"] = [
            {"id": "a", "name": "a", "phrase": "an a", "aliases": []},
            {"id": "b", "name": "b", "phrase": "a b", "aliases": []},
        ]

    project.edit("datasets/drawn.yaml", no_such_label)
    with pytest.raises(StageFailed, match="glioma_tumor") as told:
        project.run(project.plan(), "ingest")
    assert told.value.code == 65


def test_a_stage_that_is_killed_says_so(project: Project) -> None:
    (project.root / "components/ingest/__main__.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(StageFailed, match="killed") as told:
        project.run(project.plan(), "ingest")
    assert told.value.code == 137


def test_code_that_changed_since_the_plan_is_refused(project: Project) -> None:
    settled = project.plan()
    with (project.root / "clinprompt/errors.py").open("a") as file:
        file.write("# another line\n")
    with pytest.raises(BadParams, match="start a new run"):
        project.run(settled, "ingest")


def test_a_record_that_was_removed_is_named(project: Project) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    kept = record(RecordTask(plan=settled, entries=[first]), project.store)
    again = project.plan()
    Path(project.store.url, kept["record"]).unlink()
    with pytest.raises(InputMissing, match="run the release again"):
        project.run(again, "ingest")


def test_equal_runs_have_one_record_and_dvc_finds_it_true(project: Project, tmp_path: Path) -> None:
    settled = project.plan()
    first, _ = project.run(settled, "ingest")
    second, _ = project.run(settled, "validate", first)
    kept = record(RecordTask(plan=settled, entries=[second, first]), project.store)
    assert record(RecordTask(plan=project.plan(), entries=[first, second]), project.store) == kept
    assert latest_record(project.store, "drawn", "r1") == kept["record"]
    assert set(read_record(project.store, kept["record"]).lock["stages"]) == {"ingest@drawn", "validate@drawn"}

    (project.root / ".dvc").mkdir()
    (project.root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    status, answer = project.command("checkout", None, "drawn@r1")
    assert status == 0, answer
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dvc"), "repro", "validate@drawn"],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Stage 'ingest@drawn' didn't change, skipping" in done.stdout, done.stderr
    assert "Stage 'validate@drawn' didn't change, skipping" in done.stdout
    assert re.findall(r"Running stage '(\w+)", done.stdout) == ["lock"]  # which always looks
