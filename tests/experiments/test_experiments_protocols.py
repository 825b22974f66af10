"""Which images a protocol's cells hold, and what is made of the numbers."""

import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from clinprompt.errors import BadParams, DataRejected
from clinprompt.experiments.pool import Pool
from clinprompt.experiments.protocols import Cell, LeftOut, cells, check_protocol, halves
from clinprompt.experiments.scores import deviation, harmonic, mean, scores
from clinprompt.prompting.batches import Examples, ReportIds
from clinprompt.training.augmentation import CropFlip

CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture
def manifest(make_manifest: Callable[..., Any]) -> Any:
    return make_manifest({"train": 20, "val": 3, "test": 6}, CLASSES)


def made(name: str, knobs: dict[str, Any], manifest: Any, classes: tuple[str, ...] = CLASSES) -> list[Cell]:
    found = cells(check_protocol(name, knobs), manifest, classes, [1, 2])
    assert all(isinstance(cell, Cell) for cell in found)
    return [cell for cell in found if isinstance(cell, Cell)]


def test_few_shot_draws_k_per_class_and_validates_on_at_most_four(manifest: Any) -> None:
    found = made("few_shot", {"shots": [1, 2, 16], "val_shots": 4}, manifest)
    assert [tuple(cell.key.values()) for cell in found] == list(itertools.product([1, 2, 16], [1, 2]))
    for cell in found:
        assert cell.train["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, cell.key["shots"])
        assert cell.val["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, min(int(cell.key["shots"]), 3))
        assert (set(cell.train["split"]), set(cell.val["split"])) == ({"train"}, {"val"})
        assert cell.tests == {"test": CLASSES}
    one, two, sixteen = (set(cell.train["id"]) for cell in found[::2])
    assert one < two < sixteen
    assert set(found[0].train["id"]) != set(found[1].train["id"])


def test_base_to_novel_takes_the_first_half_rounded_up(manifest: Any) -> None:
    for cell in made("base_to_novel", {"shots": 4, "val_shots": 4}, manifest):
        assert cell.classes == ("a", "b", "c")
        assert cell.tests == {"base": ("a", "b", "c"), "novel": ("d", "e")}
        assert set(cell.train["label"]) == set(cell.val["label"]) == {"a", "b", "c"}


@pytest.mark.parametrize(("n", "base"), [(3, 2), (4, 2), (5, 3), (8, 4)])
def test_halves(n: int, base: int) -> None:
    first, second = halves(CLASSES[:n] if n < 6 else tuple("abcdefgh"))
    assert (len(first), len(second)) == (base, n - base)


def test_two_classes_have_no_base_to_novel(manifest: Any) -> None:
    protocol = check_protocol("base_to_novel", {"shots": 4, "val_shots": 4})
    found = cells(protocol, manifest, ("a", "b"), [1])
    assert isinstance(found[0], LeftOut)
    assert "2 classes" in found[0].reason
    with pytest.raises(DataRejected):
        halves(("a", "b"))


def test_shares_are_stratified_and_nested(manifest: Any) -> None:
    found = made("label_efficiency", {"fractions": [0.1, 0.5, 1.0]}, manifest)
    for cell in found:
        count = round(20 * cell.key["fraction"])
        assert cell.train["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, count)
        assert len(cell.val) == 15
    tenth, half, whole = (set(cell.train["id"]) for cell in found[::2])
    assert tenth < half < whole


def test_more_images_change_few_members(make_manifest: Callable[..., Any]) -> None:
    small, large = (make_manifest({"train": n, "val": 2, "test": 2}, CLASSES) for n in (100, 101))
    sets = [set(made("label_efficiency", {"fractions": [0.2]}, one)[0].train["id"]) for one in (small, large)]
    assert len(sets[0] & sets[1]) >= len(sets[0]) - len(CLASSES)


@pytest.mark.parametrize(
    ("name", "knobs", "sentence"),
    [
        ("few_shots", {}, "protocols.names: there is no protocol 'few_shots'"),
        ("few_shot", {"shots": [0], "val_shots": 4}, "protocols.few_shot.shots.0"),
        ("label_efficiency", {"fractions": [1.5]}, "protocols.label_efficiency.fractions.0"),
        ("full", {"shots": 1}, "protocols.full.shots: no such key"),
    ],
)
def test_wrong_knobs_are_named(name: str, knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadParams) as caught:
        check_protocol(name, knobs)
    assert sentence in str(caught.value)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_mean_and_deviation_are_the_samples(values: list[float]) -> None:
    assert mean(values) == pytest.approx(np.mean(values))
    assert deviation(values) == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert mean([*values, None]) is None
    assert deviation([*values, None]) is None


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_harmonic_mean(base: float, novel: float) -> None:
    assert harmonic(base, novel) == pytest.approx(statistics.harmonic_mean([base, novel]), abs=1e-6)


def test_the_harmonic_mean_at_its_edges() -> None:
    assert harmonic(0.0, 0.0) == 0.0
    assert harmonic(0.5, None) is None
    assert harmonic(-0.1, 0.5) is None


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, logits = np.arange(60) % 3, rng.normal(size=(60, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    assert scores(labels, probabilities) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            "auroc": sk.roc_auc_score(labels, probabilities, multi_class="ovr"),
            "kappa": sk.cohen_kappa_score(labels, predicted),
            "quadratic_kappa": sk.cohen_kappa_score(labels, predicted, weights="quadratic"),
        },
        abs=1e-6,
    )


def test_one_class_has_an_accuracy_and_no_auroc() -> None:
    found = scores(np.zeros(4, np.int64), np.ones((4, 1)))
    assert (found["accuracy"], found["auroc"]) == (1.0, None)


@pytest.mark.parametrize(("dim", "augmented"), [(2, False), (4, False), (4, True)])
def test_picked_examples_are_those_of_their_rows(manifest: Any, dim: int, augmented: bool) -> None:
    rows, shape = manifest[manifest["split"] == "train"], (100, 5) if dim == 2 else (100, 3, 8, 8)
    inputs, labels = torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.zeros(100, dtype=torch.int64)
    whole = CropFlip(inputs, labels, lambda x: 2 * x) if augmented else Examples(inputs, labels)
    pool = Pool.of(whole, rows)
    chosen = rows.iloc[[7, 3, 50]]
    classes = tuple(dict.fromkeys(chosen["label"]))
    picked = pool.pick(chosen, classes)
    assert len(picked) == 3
    assert picked.labels.tolist() == [classes.index(label) for label in chosen["label"]]
    at = picked.at(1, 2).batch(np.array([2, 0]))
    expected = whole.at(1, 2).batch(np.array([50, 7]))
    assert torch.equal(at.inputs, expected.inputs)
    assert at.labels.tolist() == picked.labels[[2, 0]].tolist()
    assert torch.equal(picked.batch(slice(1, 3)).labels, picked.labels[1:3])
    assert not math.isnan(float(at.inputs.sum()))


@pytest.mark.parametrize("dim", [2, 5])
def test_picked_examples_carry_the_records_of_their_rows(manifest: Any, dim: int) -> None:
    rows = manifest[manifest["split"] == "train"]
    inputs, labels = torch.zeros(100, 5) if dim == 2 else torch.zeros(100, 1, 2, 2, 2), torch.zeros(100).long()
    reports, scores = ReportIds(torch.arange(300).reshape(100, 3, 1), (0.2, 0.3, 0.5)), torch.arange(100.0)
    whole = Examples(inputs, labels, reports=reports, scores=scores)
    chosen = rows.iloc[[7, 3, 50]]
    picked = Pool.of(whole, rows).pick(chosen, tuple(dict.fromkeys(chosen["label"])))
    for epoch in (0, 1):  # each epoch draws its own words
        found, expected = picked.at(1, epoch).batch(slice(None)), whole.at(1, epoch).batch(np.array([7, 3, 50]))
        assert found.reports is not None
        assert expected.reports is not None
        assert torch.equal(found.reports, expected.reports)
        assert found.scores is not None
        assert found.scores.tolist() == [7.0, 3.0, 50.0]
    assert picked.scores is not None  # by which a method sees whether there is a score to learn
    assert picked.scores.tolist() == [7.0, 3.0, 50.0]
