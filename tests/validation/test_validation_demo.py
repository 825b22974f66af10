"""The dataset that everybody runs first, as it is shipped."""

from pathlib import Path

import pytest

from clinprompt.data.ingest import ingest
from clinprompt.data.load import load_card
from clinprompt.data.locate import locate
from clinprompt.data.manifest import read_manifest
from clinprompt.params import load_params
from clinprompt.validation.verdict import validate


@pytest.mark.slow
def test_the_demo_s_dataset_is_accepted_and_its_patients_are_not_taken_for_each_other(
    root: Path, tmp_path: Path
) -> None:
    params = load_params(root / "params.yaml")
    card = load_card(root / "datasets" / "brain-phantom.yaml")
    source = locate(card, tmp_path / "source", None)
    ingest(card, source, tmp_path / "manifest.parquet", tmp_path / "images", params.validation)
    rows = read_manifest(tmp_path / "manifest.parquet")
    verdict = validate(card, "brain-phantom.yaml", rows, tmp_path / "images", params.validation, workers=0)
    assert verdict.is_accepted, verdict.failures
    assert verdict.record["dropped"] == []
    patient = dict(zip(rows["id"], rows["patient"], strict=True))
    near = verdict.pairs[["id_a", "id_b"]].itertuples(index=False, name=None)
    assert all(patient[a] == patient[b] for a, b in near)
