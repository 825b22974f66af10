"""A run in miniature, made without torch or MLflow: manifest, feature store, tuned heads, and the two components."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from clinprompt.data.manifest import write_manifest
from clinprompt.evaluation.predictions import Predictions
from clinprompt.features.store import write_store
from clinprompt.files import read_json, sha256_bytes
from components.evaluate.__main__ import work as evaluate
from components.gate.__main__ import work as gate
from components.runner import execute

ROOT = Path(__file__).parents[2]
COMPONENTS = ROOT / "components"
CLASSES = ("glioma", "meningioma", "none")
WIDTH = 8
FLOOR = {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.5}
NOT_WORSE = {"kind": "not_worse_than_champion", "margin": 0.02}
BACKBONE = "b" * 64
MADE_FROM = {  # what else a tuned model's record says
    "dataset": "toy",
    "config": {},
    "class_names": [f"{c} tumour" for c in CLASSES],
    "preprocessing": {},
    "intensity": "auto",
    "manifest": "a" * 64,
    "knowledge": None,
    "versions": {},
    "support": "d" * 64,
    "trainable_parameters": 64,
}


def predictions(quality: float, n: int = 120, seed: int = 0, per_patient: int = 2) -> Predictions:
    """Labels fixed by `n`; probabilities of a model whose logits hold the answer `quality` times, plus noise."""
    labels = np.arange(n) // per_patient % len(CLASSES)
    logits = np.random.default_rng(seed).normal(size=(n, len(CLASSES)))
    logits[np.arange(n), labels] += quality
    odds = np.exp(logits)
    patients = np.array([f"p{i // per_patient:04d}" for i in range(n)])
    return Predictions(labels, odds / odds.sum(axis=1, keepdims=True), patients, CLASSES)


@dataclass(frozen=True)
class ToyRun:
    """The files of one dataset's run, below `root`."""

    root: Path

    def path(self, key: str) -> Path:
        """Where an input or output lies."""
        return self.root / {
            "card": "datasets/toy.yaml",
            "manifest": "validate/manifest.parquet",
            "images": "ingest/images",
            "features": "features",
            "models": "tune",
            "evaluations": "evaluate",
            "decision": "gate/decision.json",
            "params": "params.yaml",
        }.get(key, key)

    def set_params(self, section: str, **values: Any) -> None:
        """Change keys of a section of `params.yaml`."""
        params = yaml.safe_load(self.path("params").read_text())
        params[section] |= values
        self.path("params").write_text(yaml.safe_dump(params))

    def set_rules(self, *rules: dict[str, Any]) -> None:
        """Hold candidates to these rules alone."""
        self.set_params("gate", rules=list(rules))

    def tune(self, name: str, quality: float, noise: int = 0, **spec: Any) -> Path:
        """Write a tuned model whose class weights are the true ones `quality` times, plus noise; `spec` overrides."""
        folder = self.path("models") / name
        folder.mkdir(parents=True, exist_ok=True)
        method, seed = name.rsplit("-", 1)
        weight = quality * np.eye(len(CLASSES), WIDTH)
        weight += 0.3 * np.random.default_rng(noise).normal(size=weight.shape)
        save_file({}, folder / "prompts.safetensors")
        save_file(
            {"weight": weight.astype(np.float32), "scale": np.array(6.0, np.float32)}, folder / "head.safetensors"
        )
        backbone = {"name": "toy", "digest": BACKBONE, "embed_dim": WIDTH}
        facts = {
            "format": 3,
            "predicts_with": "head",
            "images": "features",
            "candidate": method,
            "method": method,
            "seed": int(seed),
            "classes": list(CLASSES),
            "backbone": backbone,
            **MADE_FROM,
        } | spec
        (folder / "model.yaml").write_text(yaml.safe_dump(facts, sort_keys=True))
        return folder

    def evaluate(self, name: str) -> int:
        """Run the evaluate component; its exit code."""
        method, seed = name.rsplit("-", 1)
        paths = {key: self.path(key) for key in ("card", "manifest", "images", "features", "params")}
        paths |= {"model": self.path("models") / name, "metrics": self.root / f"metrics/{name}.json"}
        paths |= {"summary": self.root / f"summary/{name}.json"}
        paths |= {"predictions": self.predictions(name), "plots": self.path("evaluations") / name / "plots"}
        options = ["--dataset", "toy", "--candidate", method, "--seed", seed]
        return execute("evaluate", evaluate, options + _options(paths), COMPONENTS)

    def candidate(self, name: str, quality: float, noise: int = 0) -> None:
        """Tune and evaluate."""
        self.tune(name, quality, noise)
        assert self.evaluate(name) == 0

    def gate(self) -> int:
        """Run the gate component; its exit code."""
        keys = ("card", "manifest", "images", "models", "evaluations", "decision", "params")
        return execute("gate", gate, ["--dataset", "toy", *_options({key: self.path(key) for key in keys})], COMPONENTS)

    def predictions(self, name: str) -> Path:
        """A candidate's predictions file."""
        return self.path("evaluations") / name / "predictions.parquet"

    def metrics(self, name: str) -> dict[str, Any]:
        """A candidate's metrics file."""
        return dict(read_json(self.root / f"metrics/{name}.json"))

    @property
    def decision(self) -> dict[str, Any]:
        """The gate's record."""
        return dict(read_json(self.path("decision")))


def make_run(root: Path, per_class: int = 20) -> ToyRun:
    """A dataset with `per_class` images of each class in each split, two per patient, and no candidate yet."""
    run = ToyRun(root)
    _params(run)
    _card(run)
    rng = np.random.default_rng(0)
    rows, features = [], {}
    for split in ("train", "val", "test"):
        for c, label in enumerate(CLASSES):
            for k in range(per_class):
                data = f"{split} {label} {k}".encode()
                digest = sha256_bytes(data)
                file = run.path("images") / digest[:2] / f"{digest}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                features[digest] = rng.normal(size=WIDTH) + 3 * np.eye(len(CLASSES), WIDTH)[c]
                rows.append(_row(split, label, k, digest))
    write_manifest(pd.DataFrame(rows), run.path("manifest"))
    ids = sorted(features)
    write_store(run.path("features"), _identity(), ids, np.array([features[i] for i in ids], np.float32))
    return run


def _row(split: str, label: str, k: int, digest: str) -> dict[str, Any]:
    return {
        "path": f"{split}/{label}/{k:03d}.png",
        "id": digest,
        "file": f"{digest[:2]}/{digest}.png",
        "label": label,
        "split": split,
        "patient": None if k < 2 else sha256_bytes(f"{split} {label} {k // 2}".encode())[:16],
        "site": "AB"[k % 2],
        "sex": None if k % 5 == 0 else "FM"[k % 2],
        "age": None if k % 7 == 0 else 20.0 + 3 * k,
        "modality": "MRI",
        "scanner": f"scanner {k % 2}",
    }


def _identity() -> dict[str, Any]:
    return {"backbone": {"name": "toy", "digest": BACKBONE}}


def _params(run: ToyRun) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["datasets"] = ["toy"]
    values["candidates"] = {"methods": ["coop", "zero_shot"], "seeds": [1]}
    # Of 33 patients no method is shown to be better than zero-shot.
    rules = values["gate"]["rules"]
    values["gate"]["rules"] = [rule for rule in rules if rule["kind"] != "better_than_zero_shot"]
    run.root.mkdir(parents=True, exist_ok=True)
    run.path("params").write_text(yaml.safe_dump(values))


def _card(run: ToyRun) -> None:
    card = {
        "name": "toy",
        "title": "Toy",
        "modality": "MRI",
        "organ": "brain",
        "classes": [{"id": c, "name": f"{c} tumour", "phrase": f"a brain MRI with {c}"} for c in CLASSES],
        "licence": "CC0-1.0",
        "source": "made for the tests",
        "how_to_get": "nothing to get",
        "reader": {"kind": "folder"},
    }
    run.path("card").parent.mkdir(parents=True, exist_ok=True)
    run.path("card").write_text(yaml.safe_dump(card))


def _options(paths: dict[str, Path]) -> list[str]:
    return [part for key, path in paths.items() for part in (f"--{key}", str(path))]
