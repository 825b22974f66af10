"""Grounding on the training split and influence on the validation loss, against plain computations."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from scipy.stats import median_abs_deviation

from clinprompt.backbones.load import Backbone, load_backbone
from clinprompt.data.card import Card
from clinprompt.data.manifest import write_manifest
from clinprompt.features.store import FeatureStore, write_store
from clinprompt.knowledge.__main__ import main
from clinprompt.knowledge.images.cached import Images
from clinprompt.knowledge.images.grounding import margins, robust_z
from clinprompt.knowledge.images.influence import influence

CLASSES = ("glioma", "adenoma", "none")
SPLITS = ("train", "val", "test")
TEXTS = [
    "A glioma is an irregular mass within the brain with a necrotic centre.",
    "The tumour crosses the corpus callosum to reach both hemispheres of the brain.",
    "Vasogenic oedema spreads along the white matter around this glioma.",
    "A glioma displaces the ventricles and effaces the sulci beside it.",
    "The rim of the mass enhances after gadolinium and its centre does not.",
    "On FLAIR images the infiltrating tumour is bright in the frontal lobe.",
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("demo-clip")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def images(rng: np.random.Generator, n: int = 30, e: int = 8) -> Images:
    return Images(unit(rng.normal(size=(n, e)).astype(np.float32)), np.arange(n) % 3, CLASSES)


def write_run(folder: Path, backbone: Backbone, train: np.ndarray, others: np.ndarray) -> None:
    """Features and manifest of a run with as many images of each class in each split."""
    rows = []
    for number, (split, label, k) in enumerate((s, c, k) for s in SPLITS for c in CLASSES for k in range(len(train))):
        row = {"path": f"{number:03d}.png", "id": f"{number:064x}", "file": f"{number:03d}.png", "label": label}
        rows.append(row | {"split": split, "modality": "MRI", "k": k})
    frame = pd.DataFrame(rows)
    features = np.stack([(train if row["split"] == "train" else others)[row["k"]] * (CLASSES.index(row["label"]) + 1)
                         for row in rows]).astype(np.float32)  # fmt: skip
    identity = {"backbone": {"name": backbone.name, "digest": backbone.digest}}
    write_store(folder / "features", identity, frame["id"].tolist(), features)
    (folder / "validate").mkdir(exist_ok=True)
    for column in ("patient", "site", "sex", "age"):
        frame[column] = None
    write_manifest(frame.drop(columns="k"), folder / "validate" / "manifest.parquet")


def test_the_margin_is_the_mean_cosine_with_the_classs_images_against_the_nearest_other() -> None:
    rng = np.random.default_rng(0)
    given, texts = images(rng), unit(rng.normal(size=(7, 8)).astype(np.float32))
    labels = np.arange(7) % 3
    for text, label, margin in zip(texts, labels, margins(texts, labels, given), strict=True):
        means = [
            np.mean([text @ v for v, k in zip(given.features, given.labels, strict=True) if k == c]) for c in range(3)
        ]
        assert margin == pytest.approx(means.pop(label) - max(means), abs=1e-5)


def test_the_robust_score_is_by_the_median_and_its_deviation() -> None:
    values = np.array([0.1, 0.2, 0.15, 0.12, -0.9, 0.18])
    expected = (values - np.median(values)) / median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(robust_z(values), expected, rtol=1e-4)
    assert np.isnan(robust_z(values[:4])).all()
    assert (robust_z(np.ones(6)) == 0).all()


def test_influence_is_the_difference_of_the_losses_with_and_without() -> None:
    rng = np.random.default_rng(1)
    given, texts = images(rng), unit(rng.normal(size=(6, 8)).astype(np.float32))
    labels, scale = np.array([0, 0, 0, 1, 1, 2]), 20.0

    def loss(keep: np.ndarray) -> float:
        weights = np.stack([unit(texts[keep & (labels == k)].astype(float).sum(0)) for k in range(3)])
        logits = scale * given.features.astype(float) @ weights.T
        return float(F.cross_entropy(torch.tensor(logits), torch.tensor(given.labels)))

    found = influence(texts, labels, given, scale)
    for i in range(5):
        assert found[i] == pytest.approx(loss(np.arange(6) != i) - loss(np.ones(6, bool)), abs=1e-9)
    assert np.isnan(found[5])


def test_check_with_features_reads_the_training_split_alone(
    tmp_path: Path, card_file: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"class": "glioma", "text": TEXTS}).to_csv(tmp_path / "texts.csv", index=False)
    rng = np.random.default_rng(2)
    train = rng.normal(size=(4, backbone.embed_dim))
    told = []
    for seed in range(2):
        write_run(tmp_path, backbone, train, np.random.default_rng(seed).normal(size=(4, backbone.embed_dim)))
        words = ["check", "--card", str(card_file), "--features", str(tmp_path / "features")]
        assert main([*words, str(tmp_path / "texts.csv")]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    frame = pd.read_csv(io.StringIO(told[0]))
    assert list(frame.columns[-2:]) == ["score_margin", "score_margin_z"]
    assert frame["score_margin"].notna().all()
    assert frame["accepted"].all()  # a score alone rejects nothing


def write_outlier(folder: Path, backbone: Backbone, texts: np.ndarray) -> None:
    """A run in which all but the last of the texts lie on one side of the images of their class."""
    away = np.linalg.lstsq(texts, np.array([1, 1.01, 0.99, 1.02, 0.98, -30.0]), rcond=None)[0]
    write_run(folder, backbone, np.stack([away] * 4), np.stack([away] * 4))
    store = FeatureStore.open(folder / "features")
    ids = [one.decode() for one in store.ids]
    rows = store.get(ids)
    rows[4:12] *= -1  # the classes' means differ in sign alone
    write_store(folder / "features", store.identity, ids, rows)


def test_an_outlier_goes_to_review_or_is_rejected_where_that_is_asked(
    tmp_path: Path, card_file: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"class": "glioma", "text": TEXTS}).to_csv(tmp_path / "texts.csv", index=False)
    with torch.no_grad():
        texts = unit(backbone.text.encode_ids(backbone.tokenize(TEXTS)).numpy().astype(float))
    write_outlier(tmp_path, backbone, texts)
    features = tmp_path / "features"
    words = ["check", "--card", str(card_file), "--features", str(features), str(tmp_path / "texts.csv")]
    assert main(words) == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    assert frame["review"].tolist() == ["", "", "", "", "", "far from the images of its class"]
    assert main([*words, "--reject-ungrounded"]) == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    assert frame["reason"].tolist() == ["", "", "", "", "", "ungrounded"]


def test_the_review_list_names_outliers_where_it_is_given_features(
    tmp_path: Path, card_file: Path, backbone: Backbone
) -> None:
    with torch.no_grad():
        texts = unit(backbone.text.encode_ids(backbone.tokenize(TEXTS)).numpy().astype(float))
    write_outlier(tmp_path, backbone, texts)
    nothing = pd.Series([None] * len(TEXTS), dtype="str")
    given = pd.DataFrame({"class": "glioma", "text": TEXTS, "accepted": True})
    given.assign(reason=nothing, review=nothing, reviewed=nothing).to_parquet(tmp_path / "d.parquet")
    words = ["review", "--card", str(card_file), "--out", str(tmp_path / "list"), str(tmp_path / "d.parquet")]
    listed = []
    for more in ([], ["--features", str(tmp_path / "features")]):
        assert main([*words, *more]) == 0
        listed.append(pd.read_csv(tmp_path / "list" / "review.csv")["text"].tolist())
    assert listed == [[], [TEXTS[-1]]]
    card = yaml.safe_load(card_file.read_text())
    card["novel_classes"] = [{"id": c, "name": c, "phrase": f"a brain MRI with a {c}"} for c in ("cyst", "abscess")]
    (tmp_path / "novel.yaml").write_text(yaml.safe_dump(card))
    both = pd.concat([given.assign(reason=nothing, review=nothing, reviewed=nothing)] * 2, ignore_index=True)
    both.loc[len(TEXTS) :, "class"] = "cyst"  # of which no image is trained on
    both.to_parquet(tmp_path / "d.parquet")
    words[2] = str(tmp_path / "novel.yaml")
    assert main([*words, "--features", str(tmp_path / "features")]) == 0
    assert pd.read_csv(tmp_path / "list" / "review.csv")[["class", "text"]].to_numpy().tolist() == [
        ["glioma", TEXTS[-1]]
    ]
    given.assign(reason=nothing, review=nothing, reviewed="accepted by a reader").to_parquet(tmp_path / "d.parquet")
    assert main([*words, "--features", str(tmp_path / "features")]) == 0
    assert pd.read_csv(tmp_path / "list" / "review.csv").empty


def test_the_influence_of_a_runs_descriptions_is_printed(
    tmp_path: Path, card_file: Path, card: Card, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    write_run(tmp_path, backbone, rng.normal(size=(4, backbone.embed_dim)), rng.normal(size=(4, backbone.embed_dim)))
    labels = ["glioma", "glioma", "adenoma", "adenoma", "none", "none"]
    frame = pd.DataFrame({"class": labels, "text": TEXTS, "accepted": True})
    frame.to_parquet(tmp_path / "d.parquet")
    words = [
        "influence",
        "--card",
        str(card_file),
        "--features",
        str(tmp_path / "features"),
        str(tmp_path / "d.parquet"),
    ]
    assert main(words) == 0
    told = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert sorted(told["text"]) == sorted(TEXTS)
    assert told["influence"].is_monotonic_increasing
    assert told["influence"].notna().all()
    frame.assign(accepted=frame["class"] != "none").to_parquet(tmp_path / "d.parquet")
    assert main(words) == 65
    assert "the class 'none' has no accepted description" in capsys.readouterr().err
    other = write_store(
        tmp_path / "features", {"backbone": {"name": "demo-clip", "digest": "0" * 64}}, [], np.zeros((0, 4))
    )
    assert other is None
    frame.to_parquet(tmp_path / "d.parquet")
    assert main(words) == 67
    assert "holds features of the backbone 000000000000" in capsys.readouterr().err
