"""The real graph on a small phantom: to a champion, again, with more images, with wrong labels, with kills."""

import contextlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

# The graph's stages, and for how many seconds the test that kills each waits for it to write before it strikes.
PATIENCE = {
    "lock": 0.5, "ingest": 5, "validate": 5, "describe": 0.5, "cache": 5, "tune": 3, "evaluate": 1, "gate": 0.2,
    "promote": 3, "explain": 3, "report": 0.2, "attach": 0.5,
}  # fmt: skip
ALWAYS = {"lock", "gate@brain-phantom", "promote@brain-phantom"}  # what `dvc status` names without any change
COOP = {"tune@brain-phantom-coop-1", "evaluate@brain-phantom-coop-1"}
COOP_FILE = "clinprompt/methods/coop.py"
COOP_CLASS = "class CoOp(ContextTuning, FeatureMethod):"


def started(output: str) -> list[str]:
    """The stages for which DVC started a process, in order."""
    return re.findall(r"Running stage '(\w+)['@]", output)


@pytest.fixture(scope="module")
def finished(make_workspace: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace in which the graph has run once."""
    workspace = make_workspace(tmp_path_factory.mktemp("e2e") / "finished")
    done = workspace.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(started(done.stdout)) == set(PATIENCE)
    return workspace


@pytest.fixture
def again(finished: Any, tmp_path: Path) -> Any:
    """A copy of the finished workspace that a test may change."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return type(finished)(tmp_path / "copy")


def test_a_run_ends_with_a_champion_that_predicts(finished: Any) -> None:
    assert finished.json("gate/decision.json")["verdict"] == "accepted"
    assert finished.json("promote/receipt.json")["action"] == "promoted"
    assert (finished.folder / "runs/brain-phantom/report.html").stat().st_size > 50_000
    image = min((finished.folder / "data/brain-phantom").rglob("*.png"))
    shown = finished.run("python", "-m", "registry", "load", "brain-phantom", "--image", str(image), "--json")
    assert shown.returncode == 0, shown.stderr
    assert '"no_tumor":' in shown.stdout
    summary = finished.run("python", "-m", "components")
    assert "models:/brain-phantom@champion, version 1" in summary.stdout, summary.stderr


def test_a_second_run_starts_but_lock_and_gate_and_promotes_nothing(finished: Any) -> None:
    before = finished.digests()
    done = finished.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(done.stdout) == ["lock", "gate", "promote"]
    assert finished.digests() == before
    shown = finished.run("python", "-m", "registry", "show", "brain-phantom", "--json")
    assert len(re.findall(r'"version":', shown.stdout)) >= 1
    assert not re.search(r'"version": "?2', shown.stdout)


def test_a_champion_that_vanished_from_the_registry_is_promoted_again(again: Any) -> None:
    (again.folder / "mlflow.db").unlink()
    done = again.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    image = min((again.folder / "data/brain-phantom").rglob("*.png"))
    shown = again.run("python", "-m", "registry", "load", "brain-phantom", "--image", str(image))
    assert shown.returncode == 0, shown.stderr


def test_editing_a_method_touches_its_candidates_and_nothing_else(again: Any) -> None:
    again.replace(COOP_FILE, COOP_CLASS, f"{COOP_CLASS}\n    patience = 3\n")
    assert again.changed() == ALWAYS | COOP


def test_editing_prose_touches_nothing(again: Any) -> None:
    again.replace(COOP_FILE, '"""CoOp: the words', '# A comment.\n"""CoOp, in other words: the words')
    again.edit("datasets/brain-phantom.yaml", lambda card: card.update(title="Another title"))
    assert again.changed() == ALWAYS


def test_a_stage_whose_sources_are_not_those_of_the_lock_says_how_to_renew_it(again: Any) -> None:
    again.replace(COOP_FILE, COOP_CLASS, f"{COOP_CLASS}\n    patience = 3\n")
    done = again.repro("--single-item", "--force", "tune@brain-phantom-coop-1")
    assert done.returncode != 0
    assert "exited with 64" in done.stderr
    assert "methods.coop: is not the digest of the sources as they are now; run `dvc repro lock`" in done.stderr


def test_only_candidates_that_read_a_language_model_s_knowledge_make_it_speak(again: Any) -> None:
    assert again.json("describe/report.json")["llm"] is None
    again.edit("params.yaml", lambda params: params["candidates"].update(taught=["biomedcoop"]))
    done = again.repro("evaluate_taught@brain-phantom-biomedcoop-1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(done.stdout) == ["lock", "describe", "tune_taught", "evaluate_taught"]
    assert again.json("describe/report.json")["llm"]["name"] == "smollm2-135m-instruct"
    assert again.json("metrics/biomedcoop-1.json")["candidate"] == "biomedcoop"


def test_ten_more_images_of_one_s_own_cost_ten_forwards(again: Any, tmp_path: Path) -> None:
    rows = (again.folder / "data/brain-phantom/manifest.csv").read_text().splitlines()
    column = {name: i for i, name in enumerate(rows[0].split(","))}
    mine = tmp_path / "mine"
    for number, row in enumerate(rows[1:]):
        fields = row.split(",")
        target = mine / fields[column["split"]] / fields[column["label"]]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(again.folder / "data/brain-phantom" / fields[column["path"]], target / f"{number:04d}.png")
    made = again.run("python", "-m", "clinprompt.data.new", "mine", str(mine))
    assert made.returncode == 0, made.stderr
    again.edit("params.yaml", lambda params: params.update(datasets=["mine"]))
    done = again.repro("cache@mine")
    assert done.returncode == 0, done.stdout + done.stderr

    sources = sorted((mine / "train").rglob("*.png"))[:10]
    for source in sources:
        with Image.open(source) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(source.with_name(f"more-{source.name}"))
    done = again.repro("cache@mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(done.stdout) == ["lock", "ingest", "validate", "cache"]
    assert re.search(r'"computed": 10\b', done.stdout)


def test_a_candidate_trained_on_shuffled_labels_is_rejected_and_the_champion_stays(again: Any) -> None:
    again.edit("datasets/brain-phantom.yaml", lambda card: card["reader"].update(label_noise=1.0))
    again.edit("params.yaml", lambda params: params["candidates"].update(methods=["coop"]))
    done = again.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REJECTED" in done.stderr
    assert again.json("gate/decision.json")["verdict"] == "rejected"
    assert again.json("promote/receipt.json")["action"] == "rejected"
    shown = again.run("python", "-m", "registry", "show", "brain-phantom", "--json")
    assert not re.search(r'"version": "?2', shown.stdout)


def reasons_of_another_seed(gates: Path) -> list[str]:
    """How the documentation says that a second training ends, as patterns: with any numbers, and any end."""
    table = gates.read_text().partition("with another seed ends in one of these:")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    return [re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", re.escape(one.removesuffix("…"))) for one in told]


def test_a_training_with_another_seed_ends_in_a_decision_whose_reason_is_documented(again: Any, root: Path) -> None:
    (again.folder / "seeds.yaml").write_text("candidates.seeds: [2]\ncandidates.methods: [coop]\n")
    done = again.run("python", "-m", "components.run", "--settings", "seeds.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    decision = again.json("gate/decision.json")
    known = reasons_of_another_seed(root / "docs/gates.md")
    assert len(known) == 5
    [reason] = [one for one in decision["reasons"] if any(re.search(pattern, one) for pattern in known)]
    assert reason in done.stderr
    page = html.unescape((again.folder / "runs/brain-phantom/report.html").read_text())
    assert reason in page
    renewed = decision["verdict"] == "accepted"
    assert again.json("promote/receipt.json")["action"] == ("promoted" if renewed else "rejected")
    shown = again.run("python", "-m", "registry", "show", "brain-phantom", "--json")
    assert json.loads(shown.stdout)["aliases"]["champion"] == (2 if renewed else 1)


def test_missing_data_is_answered_with_where_to_get_it(again: Any) -> None:
    again.edit("params.yaml", lambda params: params.update(datasets=["brain-tumor-mri"]))
    done = again.repro()
    assert done.returncode != 0
    assert "CLINPROMPT_DATA" in done.stderr
    assert "kaggle" in done.stderr.lower()


def killed_in(workspace: Any, stage: str) -> bool:
    """Run the graph up to a stage and kill -9 all of it when the stage writes, or has run for its time.

    A stage that ends before is left to end: DVC then writes dvc.lock in place and, killed at that, leaves half a file.
    """
    said = workspace.folder.with_suffix(".log")
    with said.open("w") as log:
        repro = psutil.Popen(
            ["dvc", "repro", stage],
            cwd=workspace.folder,
            env=workspace.env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while (component := running(repro, f"components.{stage}")) is None and repro.poll() is None:
            time.sleep(0.1)  # each look reads what all processes of the machine are
        strike = time.monotonic() + PATIENCE[stage]
        while component and component.is_running() and not has_begun_to_write(workspace.folder):
            if time.monotonic() > strike:
                break
            time.sleep(0.02)
        if component and component.is_running():
            os.killpg(repro.pid, signal.SIGKILL)
            return True
        assert repro.wait(60) == 0, said.read_text()[-3000:]
        assert stage in started(said.read_text())
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()


def has_begun_to_write(folder: Path) -> bool:
    """Whether an output stands under its temporary name."""
    places = ("data", "runs/brain-phantom", "runs/brain-phantom/*", "runs/brain-phantom/evaluate/*")
    return any(any(folder.glob(f"{place}/.*.par*")) for place in places)


def running(parent: psutil.Process, module: str) -> psutil.Process | None:
    """The child that runs `python -m module`."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in parent.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if child.cmdline()[1:3] == ["-m", module]:
                    return child
    return None


def test_kill_9_in_every_stage_and_the_same_digests_in_the_end(
    finished: Any, make_workspace: Callable[[Path], Any], tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path / "killed")
    killed = {stage for stage in PATIENCE if killed_in(workspace, stage)}
    assert len(killed) > len(PATIENCE) / 2, killed
    done = workspace.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    registry_dependent = {f"runs/brain-phantom/{file}" for file in ("promote/receipt.json", "attach/attached.json")}
    mine, theirs = workspace.digests(), finished.digests()
    assert {p for p in theirs if mine.get(p) != theirs[p]} <= registry_dependent
    assert (
        workspace.json("promote/receipt.json")["payload_digest"]
        == finished.json("promote/receipt.json")["payload_digest"]
    )
