"""A candidate whose reports are paraphrased learns from what the stage describe has accepted, and says so."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tune_workspace import CARD, Workspace

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.data.manifest import write_manifest
from clinprompt.files import sha256_file
from clinprompt.knowledge.outputs import COLUMNS
from clinprompt.training import records

KNOBS = {
    "method": "deft_ad", "epochs": 2, "warmup_epochs": 0, "n_prompts": 2, "n_text_prompts": 2, "mmse_head": "linear",
    "batch_size": 16, "phrasings": "paraphrased",
}  # fmt: skip


@pytest.fixture
def subjects(workspace: Workspace) -> Workspace:
    """Images of subjects with a record of one measure, which a quarter of them lack."""
    record = {"measures": [{"column": "v", "name": "Ventricles", "unit": "mm3"}]}
    card = CARD | {"reader": {"kind": "table"}, "metadata": {"extra": ["v"]}, "record": record}
    (workspace.folder / "toy.yaml").write_text(yaml.safe_dump(card))
    manifest = workspace.folder / "manifest.parquet"
    frame = pd.read_parquet(manifest)
    frame["v"] = [None if k % 4 == 0 else f"{k}.5" for k in range(len(frame))]
    frame["age"], frame["sex"] = np.linspace(60, 80, len(frame)), "F"
    write_manifest(frame, manifest)
    workspace.change({"candidates.variants": {"told": KNOBS}})
    return workspace


def describe(folder: Path, text: str, *, accepted: bool = True) -> Path:
    """The table of the stage describe, with one paraphrase."""
    row = dict.fromkeys(COLUMNS, "") | {"text": text, "accepted": accepted}
    path = folder / "descriptions.parquet"
    pd.DataFrame([row], columns=COLUMNS).to_parquet(path)
    return path


def test_it_is_trained_with_the_paraphrases_and_names_their_table(
    subjects: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    written = records.write_reports

    def watched(*given: object) -> object:
        reports = written(*given)  # type: ignore[arg-type]
        read.extend(text for texts in reports.texts for text in texts)
        return reports

    monkeypatch.setattr(records, "write_reports", watched)
    models = []
    for text in ("A scan of {label} at age {age} and sex {sex}, Ventricles {ventricles}.",
                 "Ventricles {ventricles}, age {age}, sex {sex}: {label}."):  # fmt: skip
        table = describe(subjects.folder, text)
        assert subjects.tune("told", f"out{len(models)}") == 0
        folder = subjects.folder / f"out{len(models)}"
        spec = yaml.safe_load((folder / "model.yaml").read_text())
        assert spec["knowledge"] == {"paraphrases": sha256_file(table)}
        assert spec["config"]["phrasings"] == "paraphrased"
        models.append((folder / "prompts.safetensors").read_bytes())
    assert models[0] != models[1]
    assert "A scan of glioma at age 60 years and sex F, Ventricles unavailable." in read
    assert any(text.startswith("Ventricles 1.50 mm3, age 60 years, sex F: ") for text in read)


def test_without_an_accepted_one_it_cannot_be_trained_and_the_others_go_on(
    subjects: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    describe(subjects.folder, "Rejected.", accepted=False)
    assert subjects.tune("told") == 0
    failed = json.loads((subjects.folder / "out" / "failed.json").read_text())
    assert failed["reason"].startswith("phrasings: paraphrased needs an accepted paraphrase of the reports' sentence")
    capsys.readouterr()
    (subjects.folder / "descriptions.parquet").write_bytes(b"damaged")
    assert subjects.tune("told", "damaged") == ExitCode.INPUT_CORRUPT
