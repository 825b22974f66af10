"""What a run in miniature starts from: a tiny random backbone, params, a card, images, evidence and descriptions."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

from clinprompt.data.manifest import read_manifest, write_manifest
from clinprompt.files import sha256_bytes, write_json

DATASET = "tiny"
CLASSES = ("bright", "dark", "grey")
LEVELS = {"bright": 210, "dark": 40, "grey": 125}
BACKBONE = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"},
}


def write_backbone(folder: Path) -> None:
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


def write_params(template: Path, root: Path) -> None:
    values = yaml.safe_load(template.read_text())
    values["datasets"] = [DATASET]
    values["candidates"] = {"methods": ["coop", "zero_shot"], "seeds": [1]}
    values["evaluation"] |= {"slices": ["site", "sex"], "age_bands": [40, 60]}
    values["backbone"] = {"name": "tiny-clip", "path": str(root / "backbone")}
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def write_card(root: Path) -> None:
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


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 6), ("val", 6), ("test", 10)):
        for label in CLASSES:
            for k in range(count):
                data = _png(LEVELS[label] + rng.normal(0, 30, (40, 40)))
                digest = sha256_bytes(data)
                file = f"{digest[:2]}/{digest}.png"
                target = folder / "ingest" / "images" / file
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
    write_manifest(frame, folder / "validate" / "manifest.parquet")


def _png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_evidence(folder: Path) -> None:
    """The evidence of a run whose test image 1 of the class "dark" had a copy in train."""
    rows = read_manifest(folder / "validate" / "manifest.parquet").set_index("path")
    twin = rows.loc["test/dark/1.png", ["id", "file", "label", "split"]].to_dict()
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
                **twin,
                "split": "train",
                "reason": "exact duplicate",
                "similarity": 1.0,
                **{f"twin_{key}": value for key, value in twin.items()},
            }
        ],
        "flagged": [],
        "flagged_images": 0,
        "dropped_sentence": "1 image was dropped: 1 from train (exact duplicate, test).",
        "leaks": {
            "on_leak": "drop_from_train",
            "exact_groups": 1,
            "near_pairs_across_splits": {"all": 0, "test and train": 0},
        },
    }
    folder = folder / "validate" / "evidence"
    folder.mkdir(parents=True)
    write_json(folder / "verdict.json", verdict)


def write_descriptions(path: Path) -> None:
    rows = [
        {"class": c, "aspect": "shape", "text": f"A {c} square with four sides.", "accepted": True, "reason": ""}
        for c in CLASSES
    ]
    rows.append(
        {"class": "dark", "aspect": "shape", "text": "<script>alert(1)</script>", "accepted": False, "reason": "markup"}
    )
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).assign(provider="local").to_parquet(path)
