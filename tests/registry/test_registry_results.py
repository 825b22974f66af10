"""`python -m registry push-results | pull-results`: experiments' results through MLflow, and the table made of them."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from server import Server

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.experiments.__main__ import main as experiments
from clinprompt.experiments.results import Result
from clinprompt.files import write_json
from registry.__main__ import main

ACCURACIES = {1: [0.5, 0.6, 0.7], 16: [0.75, 0.8, 0.9]}  # by shots, for seeds 1 to 3
RESULT = Path("toy/experiments/few_shot/coop.json")


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params and one result, whose MLflow is a local file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    write_result(Path("runs"), ACCURACIES)
    return tmp_path


def write_result(runs: Path, accuracies: dict[int, list[float]], method: str = "coop") -> None:
    rows = [
        {"shots": shots, "seed": seed, "test": dict.fromkeys(SELECTABLE, value)}
        for shots, values in accuracies.items()
        for seed, value in enumerate(values, 1)
    ]
    facts = {
        "dataset": "toy",
        "protocol": "few_shot",
        "method": method,
        "backbone": {"name": "tiny", "digest": "0"},
        "config": {"n_ctx": 4},
    }
    write_json(runs / RESULT.with_name(f"{method}.json"), Result(facts, rows).to_json())


def runs_in_mlflow() -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("clinprompt-results")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert experiments(["table", "--protocol", "few_shot", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.minutes
def test_others_make_the_same_table_from_a_server(
    project: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    write_result(Path("runs"), {1: [0.1, 0.2, 0.4], 16: [0.3, 0.3, 0.6]}, "kgcoop")
    assert main(["push-results"]) == 0
    mine = table(capsys)
    assert main(["pull-results", "theirs"]) == 0
    for path in Path("runs").rglob("*.json"):
        assert (Path("theirs") / path.relative_to("runs")).read_bytes() == path.read_bytes()
    assert table(capsys, "--runs", "theirs") == mine
    assert "| coop | 60.00 ± 10.00 | 81.67 ± 7.64 |" in mine


def test_a_run_holds_mean_and_deviation_and_knobs(project: Path) -> None:
    assert main(["push-results"]) == 0
    [run] = runs_in_mlflow()
    assert run.data.metrics["16/test_accuracy"] == pytest.approx(np.mean(ACCURACIES[16]))
    assert run.data.metrics["16/test_accuracy_deviation"] == pytest.approx(np.std(ACCURACIES[16], ddof=1))
    assert run.data.params == {
        "dataset": "toy", "protocol": "few_shot", "method": "coop", "backbone": "tiny", "n_ctx": "4"
    }  # fmt: skip


def test_what_is_there_is_not_logged_again_and_the_newest_is_pulled(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["push-results"]) == 0
    assert len(runs_in_mlflow()) == 1
    for accuracies in ({1: [0.9, 0.9, 0.9]}, ACCURACIES):  # another result, and back
        write_result(Path("runs"), accuracies)
        assert main(["push-results"]) == 0
        assert main(["pull-results", "theirs"]) == 0
        assert (Path("theirs") / RESULT).read_bytes() == (Path("runs") / RESULT).read_bytes()
    assert len(runs_in_mlflow()) == 3
    capsys.readouterr()
    assert main(["pull-results", "theirs"]) == 0
    assert "0 of 1 results pulled from 'clinprompt-results'; the others were there." in capsys.readouterr().out


def test_ones_own_result_goes_before_a_pulled_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(Path("theirs"), {1: [0.9, 0.9, 0.9], 16: [0.9, 0.9, 0.9]})
    write_result(Path("theirs"), {1: [0.3, 0.3, 0.3], 16: [0.3, 0.3, 0.3]}, "kgcoop")
    text = table(capsys, "--runs", "runs", "--runs", "theirs")
    assert "| coop | 60.00 ± 10.00 |" in text
    assert "| kgcoop | 30.00 ± 0.00 |" in text


@pytest.mark.parametrize("place", ["../../outside.json", "toy/experiments/few_shot/../../../../x.json", "/etc/x.json"])
def test_a_place_outside_of_the_folder_is_refused(
    project: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push-results"]) == 0
    [run] = runs_in_mlflow()
    mlflow.MlflowClient().set_tag(run.info.run_id, "result_file", place)
    assert main(["pull-results", "theirs"]) == ExitCode.INPUT_CORRUPT
    assert f"its tag result_file is {place!r}" in capsys.readouterr().err
    assert not Path("theirs").exists()


def test_a_changed_artifact_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push-results"]) == 0
    [artifact] = Path("mlartifacts").rglob("coop.json")
    artifact.write_text(artifact.read_text().replace("0.9", "0.99"))
    assert main(["pull-results", "theirs"]) == ExitCode.INPUT_CORRUPT
    assert "coop.json is not the file that was pushed" in capsys.readouterr().err
    assert not (Path("theirs") / RESULT).exists()


def test_mistakes_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull-results", "theirs"]) == ExitCode.INPUT_MISSING
    assert "has no results in 'clinprompt-results'" in capsys.readouterr().err
    assert main(["push-results", "--runs", "elsewhere"]) == ExitCode.INPUT_MISSING
    assert "There are no results below elsewhere" in capsys.readouterr().err
    assert main(["pull-results", "runs"]) == ExitCode.BAD_PARAMS
    assert "name another folder" in capsys.readouterr().err
    assert experiments(["table", "--runs", "elsewhere"]) == ExitCode.INPUT_MISSING
