"""`python -m benchmarks.leaks RUN`: what files that lie in training and test both do to a test score.

RUN is a dataset's folder below `runs/` after `validate` and `cache`. A logistic regression on the cached features is
trained with and without the training images whose bytes are those of a test image.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from clinprompt.features.store import FeatureStore


def scores(store: FeatureStore, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Balanced accuracy, AUROC (one against the rest) and each class's recall on `test` of a regression on `train`."""
    model = LogisticRegression(max_iter=3000).fit(_unit(store, train), train["label"].astype(str))
    of_classes, labels = model.predict_proba(_unit(store, test)), test["label"].astype(str)
    chances = of_classes[:, 1] if of_classes.shape[1] == 2 else of_classes
    answers = model.classes_[of_classes.argmax(1)]
    recalls = recall_score(labels, answers, average=None, labels=model.classes_).round(3)
    return {
        "balanced_accuracy": round(balanced_accuracy_score(labels, answers), 3),
        "auroc": round(roc_auc_score(labels, chances, multi_class="ovr"), 3),
        "recall": dict(zip(model.classes_.tolist(), recalls.tolist(), strict=True)),
    }


def _unit(store: FeatureStore, rows: pd.DataFrame) -> np.ndarray:
    features = store.get(rows["id"].astype(str).tolist())
    scaled: np.ndarray = 10 * features / np.linalg.norm(features, axis=1, keepdims=True)
    return scaled


def main() -> None:
    """Print both scores as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    store = FeatureStore.open(run / "features")
    rows = pd.read_parquet(run / "ingest" / "manifest.parquet")
    known = {id_.decode() for id_ in store.ids.tolist()}  # near-duplicates that were left out have no features
    rows = rows[rows["id"].astype(str).isin(known)]
    test, rest = rows[rows["split"] == "test"], rows[rows["split"] != "test"]
    is_shared, in_training = rest["id"].isin(set(test["id"])), test["id"].isin(set(rest["id"]))
    found = {
        "test images": len(test),
        "of these with their bytes in training": int(in_training.sum()),
        "the same by class": test["label"][in_training].astype(str).value_counts().sort_index().to_dict(),
        "trained with them": scores(store, rest, test),
        "trained without": scores(store, rest[~is_shared], test),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
