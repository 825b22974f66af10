"""The numbers behind the plots, and figures of unusual shapes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from toy_run import predictions

from clinprompt.evaluation.curves import confusion_pairs, evenly, projection, reliability_bins, roc_points
from clinprompt.evaluation.intervals import Intervals, estimate_all
from clinprompt.evaluation.plots import write_plots
from clinprompt.evaluation.predictions import Predictions


def test_the_area_under_the_points_is_the_auroc() -> None:
    p = predictions(1.0)
    points = roc_points(p)
    for c, class_id in enumerate(p.classes):
        curve = points[points["class"] == class_id]
        area = np.trapezoid(curve["tpr"], curve["fpr"])
        assert area == pytest.approx(roc_auc_score(p.labels == c, p.probabilities[:, c]))


def test_the_bins_add_up_to_the_calibration_error() -> None:
    p = predictions(1.0)
    table = reliability_bins(p, 15)
    error = (table["count"] * (table["accuracy"] - table["confidence"]).abs()).sum() / len(p)
    assert error == pytest.approx(estimate_all(p, Intervals()).overall["ece"].value, abs=1e-6)


def test_the_pairs_are_actual_then_predicted() -> None:
    p = Predictions(np.array([0, 1]), np.array([[0.1, 0.9], [0.2, 0.8]]), np.array(["a", "b"]), ("x", "y"))
    assert confusion_pairs(p).to_dict("list") == {"actual": ["x", "y"], "predicted": ["y", "y"]}


@pytest.mark.parametrize(("n", "how"), [(0, "PCA"), (1, "PCA"), (5, "PCA"), (200, "t-SNE")])
def test_the_projection_is_the_same_each_time(n: int, how: str) -> None:
    features = np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32)
    plane, name = projection(features)
    assert name == how
    assert plane.shape == (n, 2)
    assert np.isfinite(plane).all()
    np.testing.assert_array_equal(projection(features)[0], plane)


def test_few_of_many_points_are_drawn_evenly() -> None:
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly(101, 11).tolist() == list(range(0, 101, 10))


@pytest.mark.parametrize("classes", [2, 9])
@pytest.mark.parametrize("n", [1, 40])
def test_any_number_of_classes_and_images_can_be_drawn(tmp_path: Path, classes: int, n: int) -> None:
    rng = np.random.default_rng(0)
    ids = tuple(f"class_{c}" for c in range(classes))
    p = Predictions(np.arange(n) % classes, rng.dirichlet(np.ones(classes), n), np.arange(n).astype(str), ids)
    features = rng.normal(size=(n, 8)).astype(np.float32)
    for name in ("a", "b"):
        write_plots(tmp_path / name, p, features, names=[f"class no. {c}" for c in range(classes)], title="t", bins=5)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 300
                assert "Software" not in image.info
