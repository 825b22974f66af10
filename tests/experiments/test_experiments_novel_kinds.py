"""Novel classes where images are read anew: by methods on pixels, of pictures, DICOM files and volumes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_dicom import picture, written
from drawn_volumes import drawn, nifti
from test_experiments_novel import BASE, NOVELS, candidate, decided
from test_experiments_novel import split as split  # noqa: PLC0414 - a fixture

from clinprompt.backbones.load import load_backbone
from clinprompt.data.columns import NOVEL
from clinprompt.data.manifest import write_manifest
from clinprompt.features.store import write_store
from clinprompt.files import read_json, sha256_bytes


def film(number: int) -> bytes:
    """A DICOM picture of 12 bits."""
    values = np.random.default_rng(number).integers(0, 4096, (16, 16), np.uint16)
    return bytes(written(picture(values, BitsStored=12)))


def head(number: int) -> bytes:
    """A NIfTI volume."""
    return nifti(drawn(seed=number))


def replace_images(toy: Any, made: Callable[[int], bytes], ending: str, backbone: str, path: str | None) -> None:
    """Let the manifest's images be files of another kind, with features of the backbone's size."""
    rows, files = toy.manifest.copy(), []
    for number in range(len(rows)):
        data = made(number)
        digest = sha256_bytes(data)
        target = toy.folder / "images" / digest[:2] / f"{digest}.{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        files.append((digest, f"{digest[:2]}/{digest}.{ending}"))
    rows["id"], rows["file"] = zip(*files, strict=True)
    write_manifest(rows, toy.folder / "manifest.parquet")
    toy.manifest = rows
    opened = load_backbone(backbone, path)
    toy.change({"backbone": {"name": backbone, "path": path}})
    features = np.random.default_rng(0).normal(size=(len(rows), opened.embed_dim)).astype(np.float32)
    ids = sorted(rows["id"])
    write_store(toy.folder / f"features-{ending}", {"backbone": {"digest": opened.digest}}, ids, features)
    (toy.folder / "features").rename(toy.folder / "features-before")
    (toy.folder / f"features-{ending}").rename(toy.folder / "features")


def write_records(toy: Any) -> None:
    """Give the card a record of one measure and a score, and each image's subject its own."""
    card = yaml.safe_load((toy.folder / "toy.yaml").read_text())
    score = {"column": "mmse", "name": "MMSE", "low": 0, "high": 30}
    measures = [{"column": "brain", "name": "Brain Vol", "unit": "mm3", "low": 0}]
    record = {"measures": measures, "score": score, "reference": BASE[0]}
    reader = {"kind": "table", "file": "images.csv", "split": None}
    toy.write_card(card | {"record": record, "metadata": {"extra": ["brain", "mmse"]}, "reader": reader})
    numbers = np.arange(len(toy.manifest))
    toy.manifest = toy.manifest.assign(brain=(1000 + numbers).astype(str), mmse=(20 + numbers % 10).astype(str))
    write_manifest(toy.manifest, toy.folder / "manifest.parquet")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("vpt", "png"),
        ("maple", "png"),
        ("vpt", "dcm"),
        ("coop", "dcm"),
        ("deft_ad", "nii"),
        ("coop", "nii"),
        ("vpt", "nii"),
    ],
)
def test_who_reads_images_answers_to_the_novel_ones(split: Any, method: str, kind: str) -> None:
    if kind == "dcm":
        replace_images(split, film, "dcm", "mine", split.params["backbone"]["path"])
    elif kind == "nii":
        replace_images(split, head, "nii", "demo-m3d", None)
        write_records(split)
    knobs = {"epochs": 1, "batch_size": 8}
    split.change({f"methods.{method}": knobs | ({"head": "cosine"} if method == "vpt" else {})})
    candidate(split, method)
    frame = pd.read_parquet(split.folder / f"evaluate/{method}-1/predictions.parquet")
    rows = frame[frame["split"] == NOVEL]
    assert len(rows) == (split.manifest["split"] == NOVEL).sum()
    np.testing.assert_allclose(rows[[f"p_{c}" for c in NOVELS]].sum(axis=1), 1)
    assert rows[[f"p_{c}" for c in BASE]].isna().all(axis=None)
    assert read_json(split.folder / f"metrics/{method}-1.json")["novel"]["n"] == len(rows)
    split.params["gate"]["rules"][2]["at_least"] = 0.0
    record = decided(split, method)
    assert [check.rule for check in record.checks][-1] == "novel_harmonic_mean"
    assert record.candidates[0].not_eligible is None
