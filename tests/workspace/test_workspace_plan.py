"""Releases, plans and sweeps: what a run is made of, settled before it starts."""

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from small_project import Project, draw

from clinprompt.contract.tasks import pack
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.revision import BUILT_FROM, git_commit
from workspace.plan import promotion, sweep
from workspace.records import latest_record, read_record, record
from workspace.releases import find_release, list_releases, publish
from workspace.repo import Workspace
from workspace.task import PromotionTask, RecordTask, StageTask, SweepTask, read_task

RULES: list[dict[str, Any]] = [
    {"kind": "floor", "metric": "accuracy", "at_least": 0.5},
    {"kind": "not_worse_than_champion", "margin": 0.02},
]
TIMED: dict[str, Any] = {"kind": "latency", "at_most_ms": 50}


def test_a_release_is_published_once_and_never_changes(project: Project, tmp_path: Path) -> None:
    again, new = publish(project.store, "drawn", tmp_path / "r1", "r1")
    assert not new
    assert [r.partition for r in list_releases(project.store)] == ["drawn@r1"]
    assert again.files == sum(1 for path in (tmp_path / "r1").rglob("*") if path.is_file())
    with pytest.raises(BadParams, match="releases never change"):
        publish(project.store, "drawn", draw(tmp_path / "other", patients=5), "r1")


@pytest.mark.parametrize("text", ["", "[]", "{}", "1", "[" * 99_999, '{"digest": "../../x"}'])
def test_a_release_or_a_record_that_is_none_is_named(project: Project, tmp_path: Path, text: str) -> None:
    for key, read in (
        ("releases/drawn/r1.json", lambda: list_releases(project.store)),
        ("releases/drawn/r1.json", lambda: find_release(project.store, "drawn", "r1")),
        ("latest/drawn.json", lambda: latest_record(project.store, "drawn", None)),
        ("records/drawn/r1/0.json", lambda: read_record(project.store, "records/drawn/r1/0.json")),
    ):
        file = tmp_path / "store" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        with pytest.raises(InputCorrupt, match=f"{key} is not .* remove it and publish it again"):
            read()


def test_a_store_in_a_folder_is_its_owner_s_alone(project: Project, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


@pytest.mark.parametrize("dataset", ["../x", "..", "a/b", "", ".x", "a b", "/etc", "x\0"])
def test_no_name_leads_out_of_the_store(project: Project, tmp_path: Path, dataset: str) -> None:
    before = sorted(tmp_path.rglob("*.json"))
    with pytest.raises(BadParams, match="is no name of a dataset or release"):
        publish(project.store, dataset, tmp_path / "r1", "r9")
    with pytest.raises(BadParams, match="is no name of a dataset or release"):
        publish(project.store, "drawn", tmp_path / "r1", dataset or "..")
    assert sorted(tmp_path.rglob("*.json")) == before


def test_an_empty_folder_is_no_release(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissing, match="holds no files"):
        publish(project.store, "drawn", tmp_path / "empty", "r2")


def test_only_the_newest_release_is_promoted(project: Project, tmp_path: Path) -> None:
    assert project.plan().promote
    publish(project.store, "drawn", draw(tmp_path / "r2", patients=5), "r2")
    assert project.plan().release == "r2"
    assert project.plan().promote
    assert not project.plan(release="r1").promote
    assert not project.plan(promote="never").promote
    # A promotion that is refused leaves no record, and the second training that it waits for takes one.
    project.edit("params.yaml", lambda params: params["registry"].update(reproduce="required"))
    assert not project.plan().promote


def test_a_plan_names_the_candidates_and_keeps_the_overrides(project: Project) -> None:
    settled = project.plan(methods=["coop"], seeds=[3, 4], overrides={"training": {"shots": 4}})
    assert [(c.candidate, c.seed) for c in settled.candidates] == [("coop", 3), ("coop", 4)]
    candidates = {"methods": ["coop"], "taught": [], "seeds": [3, 4]}
    assert settled.overrides == {"training": {"shots": 4}, "candidates": candidates}
    assert settled.partition == "drawn@r1"


def test_a_variant_that_reads_paraphrases_is_planned_to_wait_for_describe(project: Project) -> None:
    """Else it would be refused for that; that the card has no record is asked after it."""
    variants = {"told": {"method": "deft_ad", "phrasings": "paraphrased"}}
    with pytest.raises(BadParams, match="told on drawn: .* has no record"):
        project.plan(methods=["told"], overrides={"candidates": {"variants": variants}})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"release": "r9"}, "no release r9 of drawn"),
        ({"overrides": {"trainign": {}}}, "trainign: no such key .*did you mean 'training'"),
        ({"overrides": {"training": {"shots": "four"}}}, "training.shots"),
        ({"overrides": {"knowledge": {"aspects": ["vessels"]}}}, "knowledge.aspects: no aspect 'vessels'"),
        (
            {"overrides": {"knowledge": {"templates": {"frame": "x"}}}},
            "templates.frame: must end with a space",
        ),
        ({"methods": ["copp"]}, "copp"),
        ({"promote": "yes"}, "auto or never"),
        ({"overrides": {"gate": {"rules": [*RULES, {"kind": "flor"}]}}}, "there is no rule 'flor'"),
        ({"overrides": {"gate": {"rules": [*RULES, TIMED | {"device": "cuda"}]}}}, "of a scheduled run gets no GPU"),
    ],
)
def test_what_cannot_be_planned_is_named(project: Project, asked: dict[str, Any], told: str) -> None:
    with pytest.raises((BadParams, InputMissing), match=told):
        project.plan(**asked)


def test_a_latency_on_the_cpu_is_planned(project: Project) -> None:
    assert project.plan(overrides={"gate": {"rules": [*RULES, TIMED]}}).overrides


def test_a_sweep_finds_the_releases_without_a_record(project: Project, tmp_path: Path) -> None:
    publish(project.store, "drawn", draw(tmp_path / "r2", patients=5), "r2")
    assert sweep(SweepTask(), project.store) == ["drawn@r2"]
    assert sweep(SweepTask(dataset="drawn", releases="missing"), project.store) == ["drawn@r1", "drawn@r2"]
    record(RecordTask(plan=project.plan(release="r2"), entries=[]), project.store)
    assert sweep(SweepTask(), project.store) == []
    assert sweep(SweepTask(releases="missing"), project.store) == ["drawn@r1"]
    assert sweep(SweepTask(dataset="drawn", releases=["r2"]), project.store) == ["drawn@r2"]
    with pytest.raises(InputMissing, match="no release r7"):
        sweep(SweepTask(dataset="drawn", releases=["r7"]), project.store)


def test_a_promotion_takes_the_recorded_run(project: Project) -> None:
    with pytest.raises(InputMissing, match="No run of drawn is recorded"):
        promotion(PromotionTask(dataset="drawn"), project.store)
    settled = project.plan(promote="never")
    record(RecordTask(plan=settled, entries=[]), project.store)
    found = promotion(PromotionTask(dataset="drawn", release="r1"), project.store)
    assert found["plan"]["promote"]
    assert found["plan"]["digest"] == settled.digest


def test_the_command_answers_with_one_line_and_the_shared_exit_codes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, answer = project.command("plan", {"dataset": "drawn"})
    assert status == 0
    assert answer["plan"]["release"] == "r1"
    status, answer = project.command("plan", {"dataset": "nothing"})
    assert (status, answer["exit_code"]) == (64, 64)
    assert "datasets/nothing.yaml" in answer["message"]
    monkeypatch.setenv("CLINPROMPT_STORE", "")
    status, answer = project.command("plan", {"dataset": "drawn"})
    assert status == 64
    assert "CLINPROMPT_STORE" in answer["message"]


def test_a_store_that_does_not_answer_is_told_apart_from_one_that_is_empty(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINPROMPT_STORE", "s3://nowhere/prefix")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    status, answer = project.command("plan", {"dataset": "drawn"})
    assert status == 69
    assert "does not answer" in answer["message"]


@pytest.mark.parametrize("text", [None, "", "not packed", pack({"plan": {}})])
def test_a_task_that_is_none_is_refused(text: str | None) -> None:
    with pytest.raises(BadParams, match="CLINPROMPT_TASK"):
        read_task(StageTask, text)


def test_a_task_s_copy_of_the_code_says_which_commit_it_is_of(project: Project, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=True).stdout.strip()

    def told() -> str | None:
        with Workspace.of(project.plan(), project.store) as workspace:
            return git_commit(workspace.folder)

    assert told() is None
    (project.root / BUILT_FROM).write_text(f"{'a' * 40}\n")  # as in an image
    assert told() == "a" * 40
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "a project"]):
        git(*command)
    assert told() == git("rev-parse", "HEAD")
    (project.root / "datasets" / "note.txt").write_text("not committed")
    git("add", ".")
    assert told() == f"{git('rev-parse', 'HEAD')}-dirty"
