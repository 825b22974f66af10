"""One stage per task: run in a fresh folder, pushed, and never computed twice."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_project import Project, Ran

from clinprompt.contract.tasks import MAX_ENTRY_BYTES
from clinprompt.errors import BadParams, ClinpromptError, InputMissing
from workspace.records import latest_record, read_record, record
from workspace.stage import StageFailed, probe, run_stage
from workspace.task import LockEntry, RecordTask, StageTask

After = Callable[[str], Ran]


def objects(project: Project) -> dict[str, Path]:
    """The objects of the DVC remote by their md5."""
    folder = Path(project.store.remote) / "files" / "md5"
    return {f"{path.parent.name}{path.name}": path for path in folder.glob("*/*")}


def test_a_stage_runs_on_the_release_and_its_outputs_are_in_the_store(after: After) -> None:
    ran = after("ingest")
    entry = ran.entry
    assert not ran.cached
    assert entry.stage == "ingest@drawn"
    assert entry.outs["data/drawn"][0] == ran.plan.digest
    assert len(entry.model_dump_json()) <= MAX_ENTRY_BYTES
    held = objects(ran.project)
    assert str(entry.outs["runs/drawn/ingest/manifest.parquet"][0]) in held
    assert str(entry.outs["runs/drawn/ingest/images"][0]) in held
    assert list((ran.folder / "scratch").iterdir()) == []


def test_the_next_stage_takes_its_inputs_from_the_store_and_is_not_computed_twice(after: After) -> None:
    before, ran = after("ingest"), after("validate")
    asked = StageTask(plan=ran.plan, stage="validate", entries=[before.entry])
    assert probe(asked, before.project.store) == {"entry": None}
    assert not ran.cached
    assert probe(asked, ran.project.store) == {"entry": ran.entry.model_dump()}
    assert ran.project.run(ran.plan, "validate", before.entry) == (ran.entry, True)


def test_a_stage_whose_outputs_vanished_from_the_store_is_computed_again(after: After) -> None:
    first, ran = after("ingest").entry, after("validate")
    objects(ran.project)[str(ran.entry.outs["runs/drawn/validate/classes.json"][0])].unlink()
    assert ran.project.run(ran.plan, "validate", first) == (ran.entry, False)


def test_a_stage_that_keeps_its_output_is_taken_from_the_last_record(after: After) -> None:
    ran = after("ingest")
    project, first = ran.project, ran.entry
    assert project.run(ran.plan, "ingest") == (first, False)  # DVC's run cache knows no such stages
    record(RecordTask(plan=ran.plan, entries=[first]), project.store)
    assert project.run(project.plan(), "ingest") == (first, True)
    objects(project)[str(first.outs["runs/drawn/ingest/manifest.parquet"][0])].unlink()
    assert project.run(project.plan(), "ingest") == (first, False)


def test_a_changed_param_runs_what_it_touches_and_nothing_else(after: After) -> None:
    first, project = after("ingest").entry, after("validate").project
    other = project.plan(overrides={"validation": {"near_duplicate_bits": 4}})
    assert not project.run(other, "validate", first)[1]
    unrelated = project.plan(overrides={"knowledge": {"seed": 7}})
    assert project.run(unrelated, "validate", first)[1]


def test_an_object_that_is_not_what_its_name_says_is_never_computed_from(after: After) -> None:
    ran = after("ingest")
    path = objects(ran.project)[str(ran.entry.outs["runs/drawn/ingest/manifest.parquet"][0])]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(ClinpromptError, match=r"runs/drawn/ingest/manifest\.parquet") as told:
        ran.project.run(ran.plan, "validate", ran.entry)
    assert told.value.exit_code == 67
    assert path.exists()


def test_what_a_machine_has_fetched_is_not_fetched_again(
    after: After, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = after("validate")
    project, first = ran.project, ran.entry

    def described(seed: int) -> LockEntry:
        entry, cached = project.run(project.plan(overrides={"knowledge": {"seed": seed}}), "describe", first)
        assert not cached
        return entry

    monkeypatch.setenv("CLINPROMPT_CACHE", str(tmp_path / "cache"))
    expected = described(1)  # fills the cache
    digest = str(first.outs["runs/drawn/validate/classes.json"][0])
    kept = tmp_path / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    held = objects(project)[digest]
    away = held.rename(tmp_path / "away")
    assert described(2).outs.keys() == expected.outs.keys()
    away.rename(held)
    for mode, seed in ((0o444, 3), (0o644, 4)):
        kept.chmod(0o644)
        kept.write_bytes(b"flipped")  # a disk that has gone bad: it is fetched again
        kept.chmod(mode)
        assert described(seed).deps == expected.deps
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


# A stage that does one thing at each try, as `describe` keeps a sample, and ends as it is told.
ONE_THING_AT_A_TIME = """
import os, sys
from components.runner import run

def work(job):
    done = job.outputs["samples"]
    done.mkdir(parents=True, exist_ok=True)
    had = sorted(path.name for path in done.iterdir())
    (done / f"{len(had)}.json").write_text("{}")
    if code := int(os.environ["ENDS_WITH"]):
        sys.exit(code)
    for key in ("descriptions", "hidden_states", "report"):
        job.outputs[key].write_text("made")
    return {"had": had}

run(__file__, work)
"""


def test_what_a_stage_had_finished_is_there_at_its_next_try_but_not_what_it_could_not_read(
    after: After, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = after("validate")
    (ran.project.root / "components/describe/__main__.py").write_text(ONE_THING_AT_A_TIME)
    task = StageTask(plan=ran.project.plan(), stage="describe", entries=[ran.entry])
    for code in (137, 67, 69, 65):  # what the second could not read, the third does not get
        monkeypatch.setenv("ENDS_WITH", str(code))
        with pytest.raises(StageFailed) as told:
            run_stage(task, ran.project.store)
        assert told.value.code == code
    monkeypatch.setenv("ENDS_WITH", "0")
    assert run_stage(task, ran.project.store)["facts"]["had"] == ["0.json", "1.json"]


def test_code_that_changed_since_the_plan_is_refused(project: Project) -> None:
    settled = project.plan()
    with (project.root / "clinprompt/errors.py").open("a") as file:
        file.write("# another line\n")
    with pytest.raises(BadParams, match="start a new run"):
        project.run(settled, "ingest")


def test_a_record_that_was_removed_is_named(after: After) -> None:
    ran = after("ingest")
    kept = record(RecordTask(plan=ran.plan, entries=[ran.entry]), ran.project.store)
    again = ran.project.plan()
    Path(ran.project.store.url, kept["record"]).unlink()
    with pytest.raises(InputMissing, match="run the release again"):
        ran.project.run(again, "ingest")


def test_equal_runs_have_one_record_and_dvc_finds_it_true(after: After) -> None:
    first, ran = after("ingest").entry, after("validate")
    project, second = ran.project, ran.entry
    kept = record(RecordTask(plan=ran.plan, entries=[second, first]), project.store)
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
