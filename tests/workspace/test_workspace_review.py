"""A review from a recorded run to the next one: what is asked, what is kept, and which run an answer holds for."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_project import Project, Ran

from clinprompt.contract.tasks import pack
from clinprompt.errors import BadParams, ClinpromptError, InputCorrupt, InputMissing
from clinprompt.knowledge.__main__ import main
from clinprompt.knowledge.review.decisions import text_digest
from workspace.decisions import export, keep
from workspace.records import record
from workspace.review import review, unasked
from workspace.task import AnsweredTask, LockEntry, Plan, RecordTask, ReviewTask, UnaskedTask, read_task

BRIGHT = "On T2-weighted images a glioma of the brain is bright."
DARK = "The tumour of this brain looks dark on T2 scans again."
HEAD = "class,digest,decision,by,reason,text\n"
TAUGHT = {"candidates": {"taught": ["biomedcoop"]}, "knowledge": {"llm": None, "min_accepted_per_class": 0}}
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Reviewed:
    """A project whose card keeps decisions, with two sentences of a clinician that contradict each other."""

    project: Project
    class_id: str

    @classmethod
    def of(cls, project: Project) -> "Reviewed":
        """Change a project's card so."""
        card: dict[str, Any] = {}
        keys = {"descriptions": "drawn.reviewed.csv", "decisions": "drawn.decisions.csv"}
        project.edit("datasets/drawn.yaml", lambda value: card.update(value) or value.update(knowledge=keys))
        found = cls(project, next(one["id"] for one in card["classes"] if "glioma" in one["name"]))
        texts = pd.DataFrame({"class": found.class_id, "text": [BRIGHT, DARK]})
        texts.to_csv(project.root / "datasets" / "drawn.reviewed.csv", index=False)
        found.own.write_text(HEAD)
        return found

    @property
    def own(self) -> Path:
        """The card's own file of decisions."""
        return self.project.root / "datasets" / "drawn.decisions.csv"

    def plan(self) -> Plan:
        """The plan of a run with a candidate that reads descriptions."""
        return self.project.plan(overrides=TAUGHT)

    def describe(self, settled: Plan, *entries: LockEntry) -> tuple[LockEntry, pd.DataFrame]:
        """The entry of `describe`, which is recorded, and the descriptions by text."""
        store = self.project.store
        entry, _ = self.project.run(settled, "describe", *entries)
        record(RecordTask(plan=settled, entries=[*entries, entry]), store)
        digest = str(entry.outs["runs/drawn/describe/descriptions.parquet"][0])
        path = Path(store.remote) / "files" / "md5" / digest[:2] / digest[2:]
        return entry, pd.read_parquet(path).set_index("text")

    def answer(self, choice: str, text: str, at: datetime = NOON, **other: Any) -> dict[str, Any]:
        """Keep a person's answer."""
        row = {"class": self.class_id, "digest": text_digest(text), "decision": choice, "by": "Dr Who"}
        rows = [row | {"reason": "seen", "text": text} | other]
        task = {"dataset": "drawn", "answered": at.isoformat(), "decisions": rows}
        return keep(read_task(AnsweredTask, pack(task)), self.project.store)


@pytest.fixture
def reviewed(project: Project) -> Reviewed:
    """A project that nothing has run in."""
    return Reviewed.of(project)


def test_an_answer_holds_for_the_next_run_and_not_for_one_that_has_its_plan(after: Callable[[str], Ran]) -> None:
    ran = after("validate")
    reviewed, first = Reviewed.of(ran.project), ran.entry
    project, settled = reviewed.project, reviewed.plan()
    entry, _ = reviewed.describe(settled, first)
    asked = review(ReviewTask(dataset="drawn"), project.store)
    assert (asked["descriptions"], asked["waiting"]) == (2, 2)
    [question] = asked["questions"]
    assert (question["dataset"], question["release"], question["class"]) == ("drawn", "r1", reviewed.class_id)
    assert {one["text"]: one["digest"] for one in question["sentences"]} == {
        text: text_digest(text) for text in (BRIGHT, DARK)
    }
    assert {one["why"] for one in question["sentences"]} == {"as many samples say the opposite"}
    assert {one["state"] for one in question["sentences"]} == {"rejected by the checks (undecided)"}

    reviewed.answer("accepted", BRIGHT)
    reviewed.answer("rejected", DARK, NOON + timedelta(seconds=1))
    assert project.run(settled, "describe", first)[0].outs == entry.outs
    later = reviewed.plan()
    assert later.code == settled.code  # nothing that a run is pinned to has changed
    assert reviewed.own.read_text() == HEAD
    _, table = reviewed.describe(later, first)
    assert bool(table.loc[BRIGHT, "accepted"])
    assert table.loc[BRIGHT, "reviewed"] == "accepted by Dr Who: seen"
    assert table.loc[DARK, "reason"] == "reviewed"
    assert review(ReviewTask(dataset="drawn", release="r1"), project.store)["questions"] == []

    (project.root / ".dvc").mkdir()  # a clone, in which the run is restored with its decisions
    (project.root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    status, answer = project.command("checkout", None, "drawn@r1")
    assert status == 0, answer
    assert ",accepted,Dr Who,seen," in reviewed.own.read_text()
    dvc = [str(Path(sys.executable).parent / "dvc"), "repro", "--single-item", "lock", "describe@drawn"]
    done = subprocess.run(dvc, cwd=project.root, capture_output=True, text=True, check=False)
    assert "Stage 'describe@drawn' didn't change, skipping" in done.stdout, done.stderr


def test_what_nobody_was_asked_about_is_announced_until_a_review_has_asked(after: Callable[[str], Ran]) -> None:
    ran = after("validate")
    reviewed, store = Reviewed.of(ran.project), ran.project.store
    settled = reviewed.plan()
    entry, _ = reviewed.project.run(settled, "describe", ran.entry)  # nothing is recorded: the run fails after it

    def waiting(made: LockEntry) -> int:
        told = unasked(UnaskedTask(plan=reviewed.plan(), entries=[made]), store)
        assert told["descriptions"] == made.outs["runs/drawn/describe/descriptions.parquet"][0]
        return int(told["unasked"])

    def texts(run: str, made: LockEntry | None) -> list[str]:
        digest = None if made is None else str(made.outs["runs/drawn/describe/descriptions.parquet"][0])
        airflow = {"dag_id": "review", "run_id": run}
        asked = review(ReviewTask(dataset="drawn", release="r1", descriptions=digest, airflow=airflow), store)
        assert asked["waiting"] == sum(len(question["sentences"]) for question in asked["questions"])
        return sorted(one["text"] for question in asked["questions"] for one in question["sentences"])

    assert waiting(entry) == waiting(entry) == 2  # in that run and in the next one
    assert texts("first", entry) == sorted([BRIGHT, DARK])
    assert texts("first", entry) == sorted([BRIGHT, DARK])  # tried again
    assert waiting(entry) == 0
    assert texts("second", entry) == []  # of an event that was on its way

    file = reviewed.project.root / "datasets" / "drawn.reviewed.csv"
    file.write_text(
        f"{file.read_text()}{reviewed.class_id},The glioma of this patient is bright on T1-weighted images.\n"
    )
    file.write_text(f"{file.read_text()}{reviewed.class_id},On T1-weighted images this glioma of the brain is dark.\n")
    more, _ = reviewed.describe(reviewed.plan(), ran.entry)
    assert waiting(more) == 2  # new sentences, and not the ones before them
    assert len(texts("by hand", None)) == 4
    assert waiting(more) == 0


def test_what_is_taken_into_the_card_s_file_changes_no_run_and_wins_from_then_on(
    reviewed: Reviewed, tmp_path: Path
) -> None:
    store, answers = reviewed.project.store, tmp_path / "answers.csv"
    reviewed.answer("accepted", BRIGHT)
    pinned = reviewed.plan()
    assert pinned.decisions is not None
    assert export(store, "drawn", answers)["decisions"] == 1
    card = reviewed.project.root / "datasets" / "drawn.yaml"
    assert main(["decide", "--card", str(card), str(answers)]) == 0
    in_git = reviewed.plan()
    assert in_git.decisions is None
    assert in_git.locks["runs/settings.lock"] == pinned.locks["runs/settings.lock"]  # so that describe finds it has run
    assert export(store, "drawn", answers)["decisions"] == 0
    reviewed.own.write_text(reviewed.own.read_text().replace("accepted,Dr Who", "rejected,another"))
    reviewed.answer("accepted", DARK)
    assert holding(reviewed) == {BRIGHT: "rejected", DARK: "accepted"}


def holding(reviewed: Reviewed) -> dict[str, str]:
    """What holds for the next run, by text."""
    settled = reviewed.plan()
    table = json.loads((Path(reviewed.project.store.url) / f"decided/drawn/{settled.decisions}.json").read_text())
    return {row["text"]: row["decision"] for row in csv.DictReader(io.StringIO(table["table"]))}


def test_of_two_answers_the_later_one_holds_whenever_it_was_written(reviewed: Reviewed) -> None:
    east = timezone(timedelta(hours=5))
    reviewed.answer("rejected", BRIGHT, datetime(2026, 5, 1, 16, tzinfo=east))  # an hour before noon in UTC
    reviewed.answer("accepted", BRIGHT, NOON)
    reviewed.answer("rejected", BRIGHT, NOON - timedelta(minutes=1))
    again = reviewed.answer("accepted", BRIGHT, NOON)
    assert again == reviewed.answer("accepted", BRIGHT, NOON)
    assert len(reviewed.project.store.keys("decisions/drawn/")) == 3
    assert holding(reviewed) == {BRIGHT: "accepted"}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"class": "other"}, "class: 'other' is none of the card's"),
        ({"digest": "0" * 64}, "digest: it is not that of the text"),
        ({"digest": "../x"}, "digest: expected the text's SHA-256"),
        ({"by": ""}, "by: expected who decided and why"),
        ({"decision": "maybe"}, "decision"),
    ],
    ids=["class", "digest", "no-digest", "by", "decision"],
)
def test_what_is_no_decision_is_not_kept(reviewed: Reviewed, other: dict[str, str], told: str) -> None:
    with pytest.raises(BadParams, match=told):
        reviewed.answer("accepted", BRIGHT, **other)
    assert reviewed.project.store.keys("decisions/drawn/") == []


def test_decisions_that_the_store_has_changed_or_lost_stop_the_run(reviewed: Reviewed) -> None:
    reviewed.answer("accepted", BRIGHT)
    settled = reviewed.plan()
    path = Path(reviewed.project.store.url) / "decided" / "drawn" / f"{settled.decisions}.json"
    path.write_text(json.dumps({"table": HEAD}))
    with pytest.raises(InputCorrupt, match="is not what its name says"):
        reviewed.project.run(settled, "describe")
    path.unlink()
    with pytest.raises(InputMissing, match="start a new run"):
        reviewed.project.run(settled, "describe")


def test_a_class_that_the_card_has_lost_stops_no_run(reviewed: Reviewed) -> None:
    reviewed.answer("accepted", BRIGHT)
    path = next((Path(reviewed.project.store.url) / "decisions" / "drawn").iterdir())
    path.write_text(path.read_text().replace(reviewed.class_id, "renamed"))
    assert reviewed.plan().decisions is None


def test_who_can_t_be_reviewed_is_told_why(project: Project) -> None:
    def told(dataset: str, release: str | None = None) -> str:
        with pytest.raises(ClinpromptError) as error:
            review(ReviewTask(dataset=dataset, release=release), project.store)
        return f"{int(error.value.exit_code)} {error.value}"

    assert told("nothing").startswith("64 datasets/nothing.yaml does not exist")
    assert told("../drawn").startswith("64 '../drawn' is no name")
    assert "64 datasets/drawn.yaml: knowledge.decisions: name the file" in told("drawn")
    project.edit("datasets/drawn.yaml", lambda card: card.update(knowledge={"decisions": "drawn.decisions.csv"}))
    (project.root / "datasets" / "drawn.decisions.csv").write_text(HEAD)
    assert told("drawn", "r1") == "66 No run of drawn@r1 is recorded; trigger the DAG retrain first."
    record(RecordTask(plan=project.plan(), entries=[]), project.store)
    assert "has no runs/drawn/describe/descriptions.parquet; run the release again" in told("drawn")
