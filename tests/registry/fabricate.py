"""A finished run in miniature: two tuned models of a tiny backbone, their evaluation and a decision."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from fabricate_inputs import (
    CLASSES,
    DATASET,
    write_backbone,
    write_card,
    write_descriptions,
    write_evidence,
    write_images,
    write_params,
)
from safetensors.numpy import save_file

from clinprompt.backbones.load import load_backbone
from clinprompt.contract.candidates import CandidateId
from clinprompt.data.card import Card
from clinprompt.data.codecs import decode
from clinprompt.data.dataset import Dataset
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.evaluation.judge import Judged
from clinprompt.evaluation.plots import write_plots
from clinprompt.evaluation.slices import age_bands
from clinprompt.evaluation.summary import measure_candidate
from clinprompt.evaluation.table import (
    About,
    evaluated_rows,
    predictions_frame,
    split_of,
    write_predictions,
)
from clinprompt.files import read_json, sha256_file, write_json
from clinprompt.params import load_params
from clinprompt.tuned.artifact import load_model, model_digest
from clinprompt.tuned.record import BackboneRef, ModelRecord
from components.gate.__main__ import work as gate_work
from components.promote.__main__ import work
from components.runner import execute

COMPONENTS = Path(__file__).parents[2] / "components"
CURVES = "epoch,learning_rate,loss,train_accuracy,val_accuracy\n0,0.002,1.0,0.4,0.5\n1,0.001,0.6,0.6,0.6\n"


@dataclass(frozen=True)
class Run:
    """The folders of a run, as dvc.yaml lays them out below `root`."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "runs" / DATASET

    @property
    def decision(self) -> Path:
        return self.folder / "gate" / "decision.json"

    @property
    def receipt(self) -> Path:
        return self.folder / "promote" / "receipt.json"

    @property
    def card(self) -> Card:
        return load_card(self.root / "datasets" / f"{DATASET}.yaml")

    def images(self, count: int | None = None) -> list[bytes]:
        """The bytes of the first test images."""
        rows = read_manifest(self.folder / "validate" / "manifest.parquet")
        files = rows[rows["split"] == "test"]["file"].tolist()[:count]
        return [(self.folder / "ingest" / "images" / file).read_bytes() for file in files]

    def promote_options(self) -> list[str]:
        """The command line of the promote component."""
        folder = self.folder
        paths = {
            "card": self.root / "datasets" / f"{DATASET}.yaml",
            "models": folder / "tune",
            "descriptions": folder / "describe" / "descriptions.parquet",
            "manifest": folder / "validate" / "manifest.parquet",
            "images": folder / "ingest" / "images",
            "evaluations": folder / "evaluate",
            "metrics": folder / "metrics",
            "decision": self.decision,
            "receipt": self.receipt,
            "params": self.root / "params.yaml",
        }
        return _options(paths)

    def gate_options(self) -> list[str]:
        """The command line of the gate component."""
        folder = self.folder
        paths = {
            "card": self.root / "datasets" / f"{DATASET}.yaml",
            "manifest": folder / "validate" / "manifest.parquet",
            "images": folder / "ingest" / "images",
            "models": folder / "tune",
            "evaluations": folder / "evaluate",
            "decision": self.decision,
            "params": self.root / "params.yaml",
        }
        return _options(paths)

    def report_options(self) -> list[str]:
        """The command line of the report component."""
        folder = self.folder
        paths = {
            "card": self.root / "datasets" / f"{DATASET}.yaml",
            "manifest": folder / "validate" / "manifest.parquet",
            "images": folder / "ingest" / "images",
            "evidence": folder / "validate" / "evidence",
            "descriptions": folder / "describe" / "descriptions.parquet",
            "models": folder / "tune",
            "evaluations": folder / "evaluate",
            "metrics": folder / "metrics",
            "decision": self.decision,
            "report": folder / "report.html",
            "registry-report": folder / "report" / "registry" / "report.html",
            "params": self.root / "params.yaml",
        }
        return _options(paths)

    def tune(self, seed: int, quality: float, method: str = "coop") -> None:
        """Write and evaluate a candidate; `quality` 0 guesses, 1 knows the class means."""
        _tune_and_evaluate(self, method, seed, quality)

    def evaluate_again(self, method: str, seed: int) -> None:
        """Give a candidate's evaluation the digest that its folder has now."""
        name = f"{method}-{seed}"
        digest = model_digest(self.folder / "tune" / name)
        table = self.folder / "evaluate" / name / "predictions.parquet"
        metrics = self.folder / "metrics" / f"{name}.json"
        summary = json.loads(metrics.read_text())
        write_json(metrics, summary | {"model_digest": digest})
        write_predictions(pd.read_parquet(table), About(DATASET, method, seed, digest), table)

    def decide(self, *candidates: str, champion: Any = None, floor: float = 0.3) -> dict[str, Any]:
        """Write the gate's record for these candidates, as "coop-1", against a registry champion."""
        return _decide(self, list(candidates), champion, floor)


def fabricate(root: Path, params: Path) -> Run:
    """A run with the candidates coop-1 (good) and zero_shot-1 (poor), and an accepted decision."""
    run = Run(root)
    write_backbone(root / "backbone")
    write_params(params, root)
    write_card(root)
    write_images(run.folder)
    write_evidence(run.folder)
    write_descriptions(run.folder / "describe" / "descriptions.parquet")
    run.tune(1, 1.0)
    run.tune(1, 0.05, method="zero_shot")
    (run.folder / "report.html").write_text("<!doctype html><title>report</title>")
    run.decide("coop-1", "zero_shot-1")
    return run


def copy_run(run: Run, target: Path) -> Run:
    """A copy of the whole project folder, registry included."""
    shutil.copytree(run.root, target, dirs_exist_ok=True)
    params = yaml.safe_load((target / "params.yaml").read_text())
    params["backbone"]["path"] = str(target / "backbone")
    (target / "params.yaml").write_text(yaml.safe_dump(params))
    return Run(target)


def promote(run: Run) -> int:
    """Run the promote component in the run's folder; the exit code."""
    return execute("promote", work, run.promote_options(), COMPONENTS)


def gate(run: Run) -> int:
    """Run the gate component in the run's folder; the exit code."""
    return execute("gate", gate_work, run.gate_options(), COMPONENTS)


def promote_twice_at_once(run: Run) -> list[Path]:
    """Run two promotions of the run at the same time, as two workspaces would; both must succeed. Their receipts."""
    receipts = [run.root / f"receipt-{n}.json" for n in (1, 2)]
    env = os.environ | {"PYTHONPATH": str(COMPONENTS.parent)}
    both = []
    for receipt in receipts:
        options = [str(receipt) if part == str(run.receipt) else part for part in run.promote_options()]
        command = [sys.executable, "-m", "components.promote", *options]
        both.append(subprocess.Popen(command, cwd=run.root, env=env, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in both] == [0, 0]
    return receipts


def _options(paths: dict[str, Path]) -> list[str]:
    return ["--dataset", DATASET, *(part for key, path in paths.items() for part in (f"--{key}", str(path)))]


def _features(run: Run, rows: pd.DataFrame) -> np.ndarray:
    backbone = load_backbone("tiny-clip", run.root / "backbone")
    folder = run.folder / "ingest" / "images"
    pixels = [backbone.preprocessing.apply(decode((folder / f).read_bytes(), run.card.intensity)) for f in rows["file"]]
    features: np.ndarray = backbone.encode_images(torch.from_numpy(np.stack(pixels))).numpy()
    return features


def _tune_and_evaluate(run: Run, method: str, seed: int, quality: float) -> None:
    backbone = load_backbone("tiny-clip", run.root / "backbone")
    rows = evaluated_rows(read_manifest(run.folder / "validate" / "manifest.parquet"))
    rows["age_band"] = age_bands(rows["age"], [40.0, 60.0])
    features = _features(run, rows)
    rng = np.random.default_rng([seed, len(method)])
    normal = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([normal[(rows["label"] == c) & (rows["split"] == "val")].mean(axis=0) for c in CLASSES])
    means -= means.mean(axis=0)
    weight = quality * means / np.abs(means).max() + (1 - quality) * rng.normal(size=means.shape)
    head = {
        "weight": weight.astype(np.float32),
        "bias": np.asarray(-100 * weight @ normal.mean(axis=0), np.float32),
        "scale": np.float32(100.0),
    }
    record = ModelRecord(
        predicts_with="head",
        images="features",
        dataset=DATASET,
        candidate=method,
        method=method,
        config={"epochs": 3},
        seed=seed,
        classes=list(CLASSES),
        class_names=[info.name for info in run.card.classes],
        backbone=BackboneRef(name=backbone.name, digest=backbone.digest, embed_dim=backbone.embed_dim),
        preprocessing=backbone.preprocessing.to_dict(),
        intensity=run.card.intensity,
        trainable_parameters=48,
        manifest=sha256_file(run.folder / "validate" / "manifest.parquet"),
        knowledge=None,
        versions={"clinprompt": "0"},
        support="d" * 64,
    )
    folder = run.folder / "tune" / f"{method}-{seed}"
    folder.mkdir(parents=True)
    save_file({}, folder / "prompts.safetensors")
    save_file({key: np.asarray(value) for key, value in head.items()}, folder / "head.safetensors")
    record.write(folder / "model.yaml")
    (folder / "curves.csv").write_text(CURVES)
    model = load_model(folder)
    assert model.head is not None
    frame = predictions_frame(rows, model.head.probabilities(features), CLASSES)
    about = About(DATASET, method, seed, model.digest)
    out = run.folder / "evaluate" / f"{method}-{seed}"
    out.mkdir(parents=True)
    write_predictions(frame, about, out / "predictions.parquet")
    params = load_params(run.root / "params.yaml").evaluation
    dataset = Dataset.open(
        run.root / "datasets" / f"{DATASET}.yaml",
        run.folder / "validate" / "manifest.parquet",
        run.folder / "ingest" / "images",
    )
    summary = measure_candidate(frame, about, method, dataset, params)
    summary.write(run.folder / "metrics" / f"{method}-{seed}.json")
    tested = features[(rows["split"] == "test").to_numpy()]
    write_plots(out / "plots", split_of(frame, "test", CLASSES), tested, names=list(CLASSES), title="t", bins=15)


def _decide(run: Run, names: list[str], champion: Any, floor: float) -> dict[str, Any]:
    ids = [CandidateId.parse(name) for name in names]
    values = yaml.safe_load((run.root / "params.yaml").read_text())
    values["candidates"] = {"methods": [c.name for c in ids], "seeds": sorted({c.seed for c in ids})}
    rules = [
        {"kind": "floor", "metric": "balanced_accuracy", "at_least": floor},
        {"kind": "not_worse_than_champion", "margin": 0.5},
    ]
    few = {"alpha": 0.025, "min_patients_per_class": 1, "budget": {"decisions": None, "spending": "none"}}
    values["gate"] = {"select_by": "balanced_accuracy", **few, "rules": rules}
    (run.root / "params.yaml").write_text(yaml.safe_dump(values))
    params = load_params(run.root / "params.yaml")
    files = Judged(
        dataset=DATASET,
        card=run.root / "datasets" / f"{DATASET}.yaml",
        manifest=run.folder / "validate" / "manifest.parquet",
        images=run.folder / "ingest" / "images",
        models=run.folder / "tune",
        evaluations=run.folder / "evaluate",
        candidates=params.candidates,
        gate=params.gate,
        evaluation=params.evaluation,
    )
    files.decide(champion, None).write(run.decision)
    return dict(read_json(run.decision))
