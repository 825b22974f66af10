"""The tables made of result files: their numbers, what they say of what is missing, and the ready-made ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.experiments.__main__ import main
from clinprompt.experiments.results import Result, read_result
from clinprompt.experiments.scores import harmonic
from clinprompt.experiments.tables.papers import papers
from clinprompt.experiments.tables.results_table import Missing, ResultsTable, Value
from clinprompt.files import write_json
from clinprompt.params import load_params

SEEDS = (1, 2, 3)
Write = Callable[..., dict[str, Any]]


def metrics(rng: np.random.Generator) -> dict[str, float]:
    return {name: round(float(rng.uniform(0.3, 0.9)), 6) for name in SELECTABLE}


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params, cards and no results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLINPROMPT_DATA", raising=False)
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    (tmp_path / "datasets").symlink_to(root / "datasets")
    return tmp_path


@pytest.fixture
def write(project: Path) -> Write:
    """Write a result with made-up numbers; `rows` replaces its cells."""

    def make(protocol: str, dataset: str, method: str, rows: Any = None, left_out: str | None = None) -> dict[str, Any]:
        rng = np.random.default_rng([len(dataset), len(method), ord(method[0]), ord(dataset[0])])
        if rows is None and protocol == "few_shot":
            rows = [{"shots": k, "seed": s, "test": metrics(rng)} for k in (1, 16) for s in SEEDS]
        elif rows is None and protocol == "base_to_novel":
            rows = [{"seed": s, "base": metrics(rng), "novel": metrics(rng)} for s in SEEDS]
            for row in rows:
                row["harmonic_mean"] = {m: harmonic(row["base"][m], row["novel"][m]) for m in SELECTABLE}
        elif rows is None:
            rows = [{"seed": s, "test": metrics(rng)} for s in SEEDS]
        facts = {"dataset": dataset, "protocol": protocol, "method": method}
        facts["backbone"] = {"name": "tiny", "digest": "0"}
        found = Result(facts, [] if left_out else rows, left_out).to_json()
        write_json(path := project / "runs" / dataset / "experiments" / protocol / f"{method}.json", found)
        return read_result(path)

    return make


def numbers(result: dict[str, Any], test: str, metric: str = "accuracy", **key: Any) -> list[float]:
    rows = [row for row in result["cells"] if key.items() <= row.items()]
    return [100 * row[test][metric] for row in rows]


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    code = main(argv)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def line(text: str, start: str) -> str:
    return next(one for one in text.splitlines() if one.startswith(start))


def test_a_cell_is_mean_and_sample_deviation_over_the_seeds(write: Write, capsys: Any) -> None:
    result = write("few_shot", "brain-phantom", "coop")
    text = shown(capsys, "table", "--protocol", "few_shot")
    one, sixteen = (numbers(result, "test", "balanced_accuracy", shots=k) for k in (1, 16))
    assert "Balanced accuracy on the test split" in text  # what is shown where nothing else is asked for
    expected = " | ".join(f"{np.mean(v):.2f} ± {np.std(v, ddof=1):.2f}" for v in (one, sixteen))
    assert line(text, "| coop |") == f"| coop | {expected} |"
    assert "seeds 1, 2, 3; backbone tiny" in text


def test_the_average_is_over_datasets_per_seed_and_asks_for_all(write: Write) -> None:
    results = [write("few_shot", dataset, "coop") for dataset in ("a", "bb")]
    write("few_shot", "a", "zero_shot")
    board = ResultsTable.read([Path("runs")], "few_shot", ["a", "bb"], ["coop", "zero_shot"], only=True)
    per_seed = np.mean([numbers(result, "test", shots=16) for result in results], axis=0)
    found = board.average("coop", "16", "test", "accuracy")
    assert isinstance(found, Value)
    assert (found.mean, found.deviation) == pytest.approx((per_seed.mean(), per_seed.std(ddof=1)))
    assert board.average("zero_shot", "16", "test", "accuracy") == Missing("needs all datasets; missing: bb")


def test_both_conventions_of_the_harmonic_mean(write: Write) -> None:
    results = [write("base_to_novel", dataset, "coop") for dataset in ("a", "bb", "ccc")]
    board = ResultsTable.read([Path("runs")], "base_to_novel", ["a", "bb", "ccc"], ["coop"], only=True)
    of_each = np.mean([numbers(result, "harmonic_mean") for result in results])
    base, novel = (np.mean([numbers(result, test) for result in results]) for test in ("base", "novel"))
    found = board.average("coop", "all", "harmonic_mean", "accuracy"), board.harmonic_of_means("coop", "accuracy")
    assert [one.mean for one in found if isinstance(one, Value)] == pytest.approx(
        [of_each, 2 * base * novel / (base + novel)], abs=1e-5
    )


def test_what_is_missing_is_told_and_never_guessed(write: Write, capsys: Any) -> None:
    rows = [{"shots": 1, "seed": 1, "test": dict.fromkeys(SELECTABLE, 0.5)}]
    write("few_shot", "brain-phantom", "coop", [*rows, {"shots": 16, "seed": 1, "left_out": "too few images"}])
    text = shown(capsys, "table", "--protocol", "few_shot")
    assert line(text, "| coop |") == "| coop | 50.00 | – (b) |"
    assert line(text, "| linear_probe |") == "| linear_probe | – (a) | – (a) |"
    assert "- (a) missing: not run" in text
    assert "- (b) missing: too few images" in text


def test_a_method_that_is_left_out_says_why(write: Write, capsys: Any) -> None:
    write("base_to_novel", "brain-phantom", "coop")
    write("base_to_novel", "brain-phantom", "linear_probe", left_out="its rows belong to classes")
    text = shown(capsys, "table", "--protocol", "base_to_novel")
    assert "missing: its rows belong to classes" in text


def test_published_numbers_are_marked_with_their_source(write: Write, capsys: Any) -> None:
    write("few_shot", "brain-phantom", "coop")
    text = shown(capsys, "table", "--protocol", "few_shot", "--metric", "accuracy")
    assert "### Published: Biomed-DPT" in text
    assert "Not ours: README of Biomed-DPT" in text
    assert "**Other datasets than ours above.**" in text
    assert "| *biomed_dpt* | *59.03* | *61.27* | *66.12* | *70.76* | *73.51* |" in text
    assert "Published" not in shown(capsys, "table", "--protocol", "few_shot", "--metric", "auroc")


def test_full_shows_all_metrics(write: Write, capsys: Any) -> None:
    write("full", "brain-phantom", "coop")
    text = shown(capsys, "table", "--protocol", "full")
    assert line(text, "| dataset |").count("|") == len(SELECTABLE) + 3
    assert line(text, "| brain-phantom | coop |").count("±") == len(SELECTABLE)
    assert "72.67" not in text  # of another language model than ours
    assert "Not shown here, as its language model is LLaMA-3-8B: CILMP, reproduced." in text


def test_a_file_and_its_figure_are_the_same_each_time(write: Write, capsys: Any, project: Path) -> None:
    for dataset in ("brain-phantom", "other"):
        for method in ("coop", "zero_shot", "linear_probe"):
            write("few_shot", dataset, method)
            write("base_to_novel", dataset, method)
    seen = []
    for name in ("a", "b"):
        (project / name).mkdir()
        shown(capsys, "table", "--out", f"{name}/results.md")
        seen.append({path.name: path.read_bytes() for path in sorted((project / name).iterdir())})
    assert seen[0] == seen[1]
    assert list(seen[0]) == ["results-base_to_novel.png", "results-few_shot.png", "results.md"]
    assert b"![few_shot](results-few_shot.png)" in seen[0]["results.md"]
    assert b"### Mean over 2 datasets: brain-phantom, other" in seen[0]["results.md"]
    assert seen[0]["results-few_shot.png"][:4] == b"\x89PNG"


def test_without_results_the_table_says_so(project: Path, capsys: Any) -> None:
    assert shown(capsys, "table") == "There are no results yet.\n"
    assert "There are no results yet: `dvc repro experiments/dvc.yaml`" in shown(capsys, "table", "biomed_dpt_few_shot")


def test_transfers_have_a_column_for_each_target(project: Path, capsys: Any) -> None:
    rows = [
        {"candidate": "coop", "method": "coop", "seed": s, "test": dict.fromkeys(SELECTABLE, 0.5 + s / 100)}
        for s in (1, 3)
    ]
    rows.append({"candidate": "linear_probe", "seed": 1, "left_out": "its rows belong to classes"})
    for target in ("a", "b"):
        facts = {"protocol": "transfer", "dataset": "a", "target": target}
        write_json(project / f"runs/a/transfer/{target}.json", Result(facts, rows).to_json())
    text = shown(capsys, "table", "--protocol", "transfer")
    assert "Mean absolute error" not in text
    assert "| a | coop | 52.00 ± 1.41 | 52.00 ± 1.41 |" in text
    assert "| a | linear_probe | – (a) | – (a) |" in text


def test_transfers_tell_the_error_of_the_score_where_it_is_estimated(project: Path, capsys: Any) -> None:
    for target, error in (("a", 1.5), ("b", 2.5)):
        rows: list[dict[str, Any]] = [{"candidate": "coop", "seed": 1, "test": dict.fromkeys(SELECTABLE, 0.5)}]
        rows += [
            {"candidate": "deft_ad", "seed": s, "test": dict.fromkeys(SELECTABLE, 0.5) | {"score": {"mae": error + s}}}
            for s in (0, 1)
        ]
        facts = {"protocol": "transfer", "dataset": "a", "target": target}
        write_json(project / f"runs/a/transfer/{target}.json", Result(facts, rows).to_json())
    text = shown(capsys, "table", "--protocol", "transfer").partition("Mean absolute error of the estimated score")[2]
    assert "| a | deft_ad | 2.00 ± 0.71 | 3.00 ± 0.71 |" in text
    assert "coop" not in text


def test_cross_validation_shows_the_mean_over_the_folds_of_each_seed(write: Write, capsys: Any) -> None:
    rows = [
        {"fold": fold, "seed": seed, "test": dict.fromkeys(SELECTABLE, 0.5 + fold / 10 + seed / 100)}
        for fold in (0, 1, 2)
        for seed in (1, 3)
    ]
    write("cross_validation", "brain-phantom", "coop", rows)
    assert "| coop | 62.00 ± 1.41 |" in shown(capsys, "table", "--protocol", "cross_validation")


def test_papers_tell_what_is_here(project: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "files/BUSI").mkdir(parents=True)
    monkeypatch.setenv("CLINPROMPT_DATA", str(project / "files"))
    text = shown(capsys, "papers", "--how")
    assert "data: 1 of 11 datasets are here: busi" in text
    assert "btmri: Download BTMRI.zip" in text


def test_use_edits_params_and_keeps_their_comments(project: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = yaml.safe_load((project / "params.yaml").read_text())
    (project / "files/BUSI").mkdir(parents=True)
    monkeypatch.setenv("CLINPROMPT_DATA", str(project / "files"))
    text = shown(capsys, "use", "biomed_dpt_few_shot", "--available")
    assert "dvc repro experiments/dvc.yaml" in text
    after = yaml.safe_load((project / "params.yaml").read_text())
    assert (after["datasets"], after["protocols"]["datasets"]) == (["busi"], ["busi"])
    assert after["protocols"]["names"] == ["few_shot"]
    assert after["backbone"]["name"] == "biomedclip"
    few_shot = after["protocols"]["few_shot"]
    assert (few_shot["preset"], few_shot["budget"], few_shot["methods"]) == ("biomed_dpt", None, {})
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"datasets", "protocols", "backbone"}
    assert "# Every knob of the pipeline." in (project / "params.yaml").read_text()


def test_a_table_of_ablations_brings_its_variants_and_its_budget_and_another_takes_them_back(
    project: Path, capsys: Any
) -> None:
    shown(capsys, "use", "claims_few_shot")
    params = load_params(project / "params.yaml")
    assert params.candidate("biomedcoop-untaught").variant == {"sccm_weight": 0.0, "kdsp_weight": 0.0}
    assert params.protocols["few_shot"]["budget"] == {"steps": 1600, "batch_size": 4, "rates": [0.2, 1.0, 5.0]}
    assert {params.candidate(name).method for name in params.protocols["methods"]} == {
        "coop",
        "biomedcoop",
        "biomed_dpt",
    }
    shown(capsys, "use", "biomed_dpt_few_shot")
    assert load_params(project / "params.yaml").protocols["few_shot"]["budget"] is None
    augmentations = []
    for name, protocol in (
        ("dvpt_label_efficiency", "label_efficiency"), ("cilmp_full", "full"), ("equal_few_shot", "few_shot"),
    ):  # fmt: skip
        shown(capsys, "use", name)
        params = load_params(project / "params.yaml")
        augmentations.append((params.training.augmentation, params.protocols[protocol]["augmentation"]))
    assert augmentations == [("none", None), ("crop_flip", None), ("none", "none")]


def test_every_table_with_a_paper_trains_at_one_budget_too_and_what_is_compared_there_is_augmented_alike() -> None:
    by_name = papers()
    for name, table in by_name.items():
        if not name.startswith(("equal_", "claims_")):
            continue
        section = {key.rpartition(".")[2]: value for key, value in table.params.items() if key.startswith("protocols.")}
        assert section["augmentation"] == "none", name
        assert section["budget"]["steps"] > 0, name
        assert len(section["budget"]["rates"]) > 1, name
    published = {table.protocol for name, table in by_name.items() if name.startswith(("biomed", "cilmp", "dvpt"))}
    assert published == {table.protocol for name, table in by_name.items() if name.startswith("equal_")}


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["use", "nonsense"], 64, "no ready-made table 'nonsense'"),
        (["use", "biomed_dpt_few_shot", "--available"], 64, "None of the datasets"),
    ],
)
def test_what_can_not_be_used_is_told(project: Path, capsys: Any, argv: list[str], code: int, words: str) -> None:
    assert main(argv) == code
    assert words in capsys.readouterr().err
