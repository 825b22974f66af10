"""What the intervention changes, what a sentence does, and the plane: each against a loop."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clinprompt.prompting.base import Head
from clinprompt.prompting.teacher import TeacherBank
from clinprompt.understanding.descriptions import influence
from clinprompt.understanding.intervention import change
from clinprompt.understanding.models import with_head, with_method
from clinprompt.understanding.space import Points, planes


@pytest.mark.parametrize("counts", [(6, 6, 6), (4, 7, 5)])
def test_the_change_is_that_of_each_row_s_own_formula(build: Callable[..., Any], counts: tuple[int, ...]) -> None:
    model = build("cilmp", rows=counts)
    v = F.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = change(model.bent_rows(), v)
    assert found.total.shape == found.varying.shape == (3, 4)
    assert (found.prefix, found.rows) == (2, (min(counts), max(counts)))
    with torch.no_grad():
        for layer, prompts in enumerate(model.text_layers):
            for place in range(4):
                part = prompts.prefix if place < 2 else prompts.suffix
                states = model.rows.first if place < 2 else model.rows.last
                total, varying = [], []
                for h in states[:, place % 2]:
                    g = part.image_up(part.image_down(v))
                    rows = [h + part.R @ (part.W @ torch.cat([h, one * h]) + part.b - part.R.T @ h) for one in g]
                    total += [float((row - h).norm() / h.norm()) for row in rows]
                    mean = torch.stack(rows).mean(0)
                    squares = [float((row - mean).norm() / h.norm()) ** 2 for row in rows]
                    varying.append(np.sqrt(np.mean(squares)))
                assert found.total[layer, place] == pytest.approx(np.mean(total), rel=1e-4)
                assert found.varying[layer, place] == pytest.approx(np.mean(varying), rel=1e-3)


def test_a_sentence_s_effect_is_the_teacher_with_it_against_without_it() -> None:
    generator = torch.Generator().manual_seed(1)
    features = F.normalize(torch.randn(3, 3, 12, generator=generator), dim=-1)
    real = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    bank = TeacherBank(features * real[:, :, None], real)
    images = F.normalize(torch.randn(8, 12, generator=generator), dim=-1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    sentences = (("a", "b", "c"), ("d", "e"), ("f",))
    frame = influence(bank, sentences, images, labels, 30.0)
    for c, texts in enumerate(sentences[:2]):
        for j, text in enumerate(texts):
            means = [bank.features[k, real[k]].mean(0) for k in range(3)]
            with_it = torch.stack([F.normalize(m, dim=0) for m in means])
            means[c] = torch.stack([features[c, k] for k in range(len(texts)) if k != j]).mean(0)
            without = torch.stack([F.normalize(m, dim=0) for m in means])
            odds = [torch.logit((30.0 * images @ m.T).double().softmax(-1)[:, c]) for m in (with_it, without)]
            difference = odds[0] - odds[1]
            row = frame[frame["description"] == text].iloc[0]
            assert row["own"] == pytest.approx(float(difference[labels == c].mean()), rel=1e-3, abs=1e-3)
            assert row["others"] == pytest.approx(float(difference[labels != c].mean()), rel=1e-3, abs=1e-3)
            assert row["net"] == pytest.approx(row["own"] - row["others"])
            angle = np.degrees(np.arccos(float(with_it[c] @ without[c])))
            assert row["turned"] == pytest.approx(angle, abs=1e-2)
    assert frame["class"].tolist() == [0, 0, 0, 1, 1, 2]
    assert frame.groupby("class")["net"].apply(lambda net: net.dropna().is_monotonic_decreasing).all()
    assert frame[["net", "own", "others", "turned"]].iloc[-1].isna().all()


def test_the_sentence_that_tells_a_class_apart_comes_first() -> None:
    eye = torch.eye(4)
    # Class 0's images lie along the first axis; one sentence does too, one lies where class 1 is.
    features = torch.stack([torch.stack([eye[1], eye[0], eye[2]]), torch.stack([eye[1], eye[1], eye[1]])])
    bank = TeacherBank(features, torch.ones(2, 3, dtype=torch.bool))
    frame = influence(bank, (("wrong", "right", "idle"), ("x", "y", "z")), eye[:2], torch.tensor([0, 1]), 10.0)
    assert frame["description"].tolist()[:3] == ["right", "idle", "wrong"]
    assert frame["net"][0] > 0 > frame["net"][2]
    assert frame["net"][3:].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def some(n: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, 12))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_unchanged_images_stand_in_one_plane() -> None:
    images = some(150, 0)
    found = planes(Points(images, some(3, 1)), Points(images, some(3, 2)))
    assert found.shared
    assert found.how == "t-SNE"
    assert found.images[0] is found.images[1]
    assert [texts.shape for texts in found.texts if texts is not None] == [(3, 2), (3, 2)]
    again = planes(Points(images, some(3, 1)), Points(images, some(3, 2)))
    np.testing.assert_array_equal(again.images[0], found.images[0])


def test_texts_may_be_missing_and_images_may_change() -> None:
    found = planes(Points(some(10, 0), some(3, 1)), Points(some(10, 3), None))
    assert not found.shared
    assert found.texts[1] is None
    assert found.images[1].shape == (10, 2)
    same = planes(Points(some(10, 0), some(3, 1)), Points(some(10, 0), None))
    assert same.shared
    assert same.texts[1] is None
    assert same.images[0].shape == (10, 2)


def test_an_offset_between_images_and_texts_changes_nothing() -> None:
    images, texts = some(10, 0), some(3, 1)
    found = planes(Points(images, texts), Points(images, texts + 5))
    np.testing.assert_allclose(found.texts[0], found.texts[1], atol=1e-9)


def test_features_are_those_of_the_method(backbone: Any, build: Callable[..., Any]) -> None:
    inputs = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    for weight, bias, are_texts in (
        (torch.eye(3, 12), None, True),
        (torch.eye(3, 12), torch.zeros(3), False),
        (2 * torch.eye(3, 12), None, False),
    ):
        images, texts = with_head(backbone, Head(weight, 1.0, bias)).features(inputs)
        torch.testing.assert_close(images, F.normalize(inputs, dim=-1))
        assert (texts is not None) == are_texts
    for name, shape in (("cocoop", (2, 3, 12)), ("vpt", None), ("maple", (3, 12))):
        model = with_method(backbone, build(name))
        batch = inputs if model.frozen else model.prepare(torch.randn(2, 3, 8, 8))
        images, texts = model.features(batch)
        assert images.norm(dim=-1).tolist() == pytest.approx([1, 1], abs=1e-5)
        assert (None if texts is None else tuple(texts.shape)) == shape
