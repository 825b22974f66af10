"""Promote with novel classes: their predictions are bound to the decision as all others are."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fabricate import Run, gate, promote
from fabricate_inputs import DATASET
from outcome import result

from clinprompt.data.columns import NOVEL
from clinprompt.data.dataset import Dataset
from clinprompt.data.manifest import read_manifest, write_manifest
from clinprompt.evaluation.slices import age_bands
from clinprompt.evaluation.summary import measure_candidate
from clinprompt.evaluation.table import novel_rows, predictions_frame, read_predictions, write_predictions
from clinprompt.files import write_json
from clinprompt.params import load_params


@pytest.fixture
def with_novel(finished: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """Its card has two novel classes by now, and both candidates have answers to their images."""
    run = fresh_copy(finished)
    card_file, manifest = run.root / "datasets" / f"{DATASET}.yaml", run.folder / "validate" / "manifest.parquet"
    novel = ("striped", "dotted")
    card = yaml.safe_load(card_file.read_text())
    card["novel_classes"] = [{"id": c, "name": f"{c} square", "phrase": f"a {c} square"} for c in novel]
    card_file.write_text(yaml.safe_dump(card))
    rows = read_manifest(manifest)
    tested = rows[(rows["split"] == "test") & (rows["label"] != "grey")]
    named = dict(zip(("bright", "dark"), novel, strict=True))
    added = tested.assign(path="novel/" + tested["path"], split=NOVEL, label=tested["label"].map(named))
    write_manifest(pd.concat([rows, added]), manifest)
    dataset = Dataset.open(card_file, manifest, run.folder / "ingest" / "images")
    params = load_params(run.root / "params.yaml").evaluation
    for name in ("coop", "zero_shot"):
        table = run.folder / "evaluate" / f"{name}-1" / "predictions.parquet"
        frame, about = read_predictions(table, tuple(dataset.card.class_ids))
        extra = novel_rows(dataset.rows)
        extra["age_band"] = age_bands(extra["age"], params.age_bands)
        right = np.eye(2)[[novel.index(label) for label in extra["label"]]]
        answers = predictions_frame(extra, 0.6 * right + 0.4 * right[::-1], novel)
        both = pd.concat([frame, answers], ignore_index=True)
        write_predictions(both, about, table)
        measure_candidate(both, about, name, dataset, params).write(run.folder / "metrics" / f"{name}-1.json")
    return run


def decide_with_novel(run: Run, at_least: float) -> dict[str, Any]:
    """Hold the candidates of the run to the harmonic mean, too."""
    run.decide("coop-1", "zero_shot-1")
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    params["gate"]["rules"].append({"kind": "novel_harmonic_mean", "at_least": at_least})
    (run.root / "params.yaml").write_text(yaml.safe_dump(params))
    assert gate(run) == 0
    return dict(json.loads(run.decision.read_text()))


def test_promote_derives_the_harmonic_mean_again_and_refuses_other_novel_predictions(
    with_novel: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_novel
    record = decide_with_novel(run, 0.2)
    assert record["verdict"] == "accepted", record["reasons"]
    assert [check["rule"] for check in record["checks"]] == ["floor", "novel_harmonic_mean"]
    forged = json.loads(json.dumps(record))
    forged["checks"][1]["low"] = 0.9
    write_json(run.decision, forged)
    assert promote(run) == 67
    assert "its checks are not those of the predictions" in result(capsys)["message"]

    write_json(run.decision, record)
    table = run.folder / "evaluate" / "coop-1" / "predictions.parquet"
    whole, schema = table.read_bytes(), pq.read_schema(table)
    frame = pd.read_parquet(table)
    columns, novel = ["p_striped", "p_dotted"], frame["split"] == NOVEL
    frame.loc[novel, columns] = frame.loc[novel, columns[::-1]].to_numpy()
    pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), table)
    assert promote(run) == 67
    assert "it was made from other inputs" in result(capsys)["message"]
    assert not run.receipt.exists()

    table.write_bytes(whole)
    metrics = run.folder / "metrics" / "coop-1.json"
    told = json.loads(metrics.read_text())
    told["novel"]["harmonic_mean"]["value"] = 0.999
    true = metrics.read_bytes()
    write_json(metrics, told)
    assert promote(run) == 67
    assert "coop-1.json is not what" in result(capsys)["message"]
    metrics.write_bytes(true)
    assert promote(run) == 0
    assert result(capsys)["action"] == "promoted"
