"""`python -m benchmarks.leaks RUN [--tower NAME]`: what files that lie in training and test both do to a test score.

RUN is a dataset's folder below `runs/` after `validate` and `cache`. A logistic regression on the cached features is
trained with and without the training images whose bytes are those of a test image. With `--tower`, an entry of the
table of backbones, also on its image tower's class token before the projection, each number scaled to unit variance, in
bfloat16 (minutes for thousands of images); the strength is the one of three that the validation split prefers.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from clinprompt.backbones.load import load_backbone
from clinprompt.data.codecs import decode_image
from clinprompt.features.store import FeatureStore

STRENGTHS, BATCH = (0.01, 0.1, 1.0), 16
Features = dict[str, np.ndarray]  # by an image's id


def scores(features: Features, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Balanced accuracy, AUROC (one against the rest) and each class's recall on `test` of a regression on `train`."""
    model = LogisticRegression(max_iter=3000).fit(_of(features, train), train["label"].astype(str))
    return _told(model, features, test)


def scaled_scores(features: Features, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """The same of features that are scaled, with the strength that the validation rows in `train` prefer."""
    fit, val = train[train["split"] == "train"], train[train["split"] == "val"]

    def fitted(strength: float, rows: pd.DataFrame) -> Pipeline:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
        return model.fit(_of(features, rows), rows["label"].astype(str))

    def on_validation(strength: float) -> float:
        return float(
            balanced_accuracy_score(val["label"].astype(str), fitted(strength, fit).predict(_of(features, val)))
        )

    best = max(STRENGTHS, key=on_validation)
    return {"strength": best, **_told(fitted(best, train), features, test)}


def _told(model: LogisticRegression | Pipeline, features: Features, test: pd.DataFrame) -> dict[str, Any]:
    of_classes, labels = model.predict_proba(_of(features, test)), test["label"].astype(str)
    chances = of_classes[:, 1] if of_classes.shape[1] == 2 else of_classes
    answers = model.classes_[of_classes.argmax(1)]
    recalls = recall_score(labels, answers, average=None, labels=model.classes_).round(3)
    return {
        "balanced_accuracy": round(balanced_accuracy_score(labels, answers), 3),
        "auroc": round(roc_auc_score(labels, chances, multi_class="ovr"), 3),
        "recall": dict(zip(model.classes_.tolist(), recalls.tolist(), strict=True)),
    }


def _of(features: Features, rows: pd.DataFrame) -> np.ndarray:
    return np.stack([features[id_] for id_ in rows["id"].astype(str)])


def cached(store: FeatureStore, rows: pd.DataFrame) -> Features:
    """The cached features, of length 10."""
    ids = rows["id"].astype(str).unique().tolist()
    found = store.get(ids)
    return dict(zip(ids, 10 * found / np.linalg.norm(found, axis=1, keepdims=True), strict=True))


def class_tokens(name: str, run: Path, rows: pd.DataFrame) -> Features:
    """The class token [w] behind the image tower's last norm."""
    backbone, files = load_backbone(name), rows.drop_duplicates("id").set_index("id")["file"].astype(str)
    ids, found = files.index.astype(str).tolist(), []
    for start in tqdm(range(0, len(ids), BATCH), unit="batch"):
        data = [(run / "ingest" / "images" / file).read_bytes() for file in files.iloc[start : start + BATCH]]
        pixels = torch.from_numpy(np.stack([backbone.preprocessing.apply(decode_image(one, "auto")) for one in data]))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found.append(backbone.vision.hidden([backbone.vision.embed(pixels)])[:, 0].float().numpy())
    return dict(zip(ids, np.concatenate(found), strict=True))


def main() -> None:
    """Print both scores as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tower", help="a name in the table of backbones")
    arguments = parser.parse_args()
    run = arguments.run
    store = FeatureStore.open(run / "features")
    rows = pd.read_parquet(run / "ingest" / "manifest.parquet")
    known = {id_.decode() for id_ in store.ids.tolist()}  # near-duplicates that were left out have no features
    rows = rows[rows["id"].astype(str).isin(known)]
    test, rest = rows[rows["split"] == "test"], rows[rows["split"] != "test"]
    is_shared, in_training = rest["id"].isin(set(test["id"])), test["id"].isin(set(rest["id"]))
    features, kept = cached(store, rows), rest[~is_shared]
    found = {
        "test images": len(test),
        "of these with their bytes in training": int(in_training.sum()),
        "the same by class": test["label"][in_training].astype(str).value_counts().sort_index().to_dict(),
        "trained with them": scores(features, rest, test),
        "trained without": scores(features, kept, test),
    }
    if arguments.tower:
        tokens = class_tokens(arguments.tower, run, rows)
        found["class token, trained with them"] = scaled_scores(tokens, rest, test)
        found["class token, trained without"] = scaled_scores(tokens, kept, test)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
