"""A finished run in miniature: a tiny random backbone, two tuned models, their evaluation and a decision."""

import io
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
from PIL import Image
from safetensors.numpy import save_file

from clinprompt.backbones import load_backbone
from clinprompt.contract.candidates import CandidateId
from clinprompt.data.card import Card
from clinprompt.data.codecs import decode
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest, write_manifest
from clinprompt.evaluation.intervals import Bootstrap
from clinprompt.evaluation.judge import Judged
from clinprompt.evaluation.plots import write_plots
from clinprompt.evaluation.slices import age_bands
from clinprompt.evaluation.summary import summarise
from clinprompt.evaluation.table import (
    About,
    evaluated_rows,
    patient_count,
    predictions_frame,
    split_of,
    write_predictions,
)
from clinprompt.files import read_json, sha256_bytes, sha256_file, write_json
from clinprompt.params import load_params
from clinprompt.tuned.artifact import load_model, model_digest
from clinprompt.tuned.record import BackboneRef, ModelRecord
from components.promote.__main__ import work
from components.runner import execute

COMPONENTS = Path(__file__).parents[2] / "components"
DATASET = "tiny"
CLASSES = ("bright", "dark", "grey")
LEVELS = {"bright": 210, "dark": 40, "grey": 125}
CURVES = "epoch,learning_rate,loss,train_accuracy,val_accuracy\n0,0.002,1.0,0.4,0.5\n1,0.001,0.6,0.6,0.6\n"
BOOTSTRAP = Bootstrap(50, 0.95, 15)
BACKBONE = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"},
}


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
    _backbone(root / "backbone")
    _params(params, root)
    _card(root)
    _images(run)
    _evidence(run)
    _descriptions(run.folder / "describe" / "descriptions.parquet")
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


def _backbone(folder: Path) -> None:
    from open_clip import CLIP
    from safetensors import torch as tensors

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(BACKBONE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(**BACKBONE["model_cfg"])
    tensors.save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )


def _params(template: Path, root: Path) -> None:
    values = yaml.safe_load(template.read_text())
    values["datasets"] = [DATASET]
    values["candidates"] = {"methods": ["coop", "zero_shot"], "seeds": [1]}
    values["backbone"] = {"name": "tiny-clip", "path": str(root / "backbone")}
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def _card(root: Path) -> None:
    card = {
        "name": DATASET,
        "title": "Tiny squares",
        "modality": "MRI",
        "organ": "brain",
        "classes": [{"id": c, "name": f"{c} square", "phrase": f"a {c} square"} for c in CLASSES],
        "licence": "CC0-1.0",
        "source": "Made for the tests & <nothing> else.",
        "how_to_get": "Nothing to get.",
        "reader": {"kind": "folder"},
    }
    path = root / "datasets" / f"{DATASET}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(card))


def _images(run: Run) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 6), ("val", 6), ("test", 10)):
        for label in CLASSES:
            for k in range(count):
                data = _png(LEVELS[label] + rng.normal(0, 30, (40, 40)))
                digest = sha256_bytes(data)
                file = f"{digest[:2]}/{digest}.png"
                target = run.folder / "ingest" / "images" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                patient = sha256_bytes(f"{split}{label}{k // 2}".encode())[:16]
                rows.append(
                    [
                        f"{split}/{label}/{k}.png",
                        digest,
                        file,
                        label,
                        split,
                        patient,
                        "AB"[k % 2],
                        "FM"[k % 2],
                        30.0 + k,
                    ]
                )
    columns = ["path", "id", "file", "label", "split", "patient", "site", "sex", "age"]
    frame = pd.DataFrame(rows, columns=columns).assign(modality="MRI").sort_values("path", ignore_index=True)
    write_manifest(frame, run.folder / "validate" / "manifest.parquet")


def _png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _evidence(run: Run) -> None:
    counts = {split: dict.fromkeys(CLASSES, n) for split, n in (("train", 6), ("val", 6), ("test", 10))}
    verdict = {
        "verdict": "accepted",
        "checks": [
            {"name": "row count", "severity": "critical", "passed": True, "observed": 66, "message": "66 rows"},
            {
                "name": "class balance",
                "severity": "warning",
                "passed": False,
                "observed": 0.9,
                "message": "<b>uneven</b>",
            },
        ],
        "counts": counts,
        "dropped": [
            {
                "path": "train/dark/9.png",
                "split": "train",
                "reason": "exact duplicate",
                "twin_path": "test/dark/1.png",
                "twin_split": "test",
            }
        ],
        "leaks": {
            "on_leak": "drop_from_train",
            "exact_groups": 1,
            "near_pairs_across_splits": {"all": 0, "test and train": 0},
        },
    }
    folder = run.folder / "validate" / "evidence"
    folder.mkdir(parents=True)
    write_json(folder / "verdict.json", verdict)


def _descriptions(path: Path) -> None:
    rows = [
        {"class": c, "aspect": "shape", "text": f"A {c} square with four sides.", "accepted": True, "reason": ""}
        for c in CLASSES
    ]
    rows.append(
        {"class": "dark", "aspect": "shape", "text": "<script>alert(1)</script>", "accepted": False, "reason": "markup"}
    )
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(path)


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
    summary = summarise(
        frame,
        rows,
        about=about,
        method=method,
        classes=CLASSES,
        patients=patient_count(read_manifest(run.folder / "validate" / "manifest.parquet")),
        slices=["site", "sex"],
        bootstrap=BOOTSTRAP,
    )
    summary.write(run.folder / "metrics" / f"{method}-{seed}.json")
    tested = features[(rows["split"] == "test").to_numpy()]
    write_plots(out / "plots", split_of(frame, "test", CLASSES), tested, names=list(CLASSES), title="t", bins=15)


def _decide(run: Run, names: list[str], champion: Any, floor: float) -> dict[str, Any]:
    ids = [CandidateId.parse(name) for name in names]
    values = yaml.safe_load((run.root / "params.yaml").read_text())
    values["candidates"] = {"methods": [c.name for c in ids], "seeds": sorted({c.seed for c in ids})}
    values["gate"] = {"select_by": "balanced_accuracy", "floors": {"balanced_accuracy": floor}, "margin": 0.5}
    values["evaluation"] |= {"bootstrap_resamples": BOOTSTRAP.resamples}
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
    files.decide(champion).write(run.decision)
    return dict(read_json(run.decision))
