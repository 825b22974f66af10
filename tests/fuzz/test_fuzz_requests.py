"""Damaged prediction requests: classified, or refused with a sentence that names the row."""

import base64
import io
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mutations import call_all, damaged
from PIL import Image

from clinprompt.data.codecs import MAX_PIXELS, decode, read_file
from clinprompt.data.preprocessing import Preprocessing
from registry.model_script import PromptTunedClassifier


class TwoClasses:
    """What a loaded model predicts with, in small."""

    def answers(self, pixels: torch.Tensor) -> np.ndarray:
        return np.stack([pixels.numpy().mean((1, 2, 3)), np.zeros(len(pixels))], 1)


@pytest.fixture
def classifier() -> PromptTunedClassifier:
    model = PromptTunedClassifier()
    model._max_pixels, model._score, model._calibration = MAX_PIXELS, None, {}
    model._classes, model._intensity, model._model = ["a", "b"], "auto", TwoClasses()  # type: ignore[assignment]
    model._read_file = read_file
    model._decode, model._preprocessing = decode, Preprocessing(8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return model


def requests(images: list[bytes]) -> Iterator[Any]:
    for number in range(1200):
        rng = random.Random(number)  # noqa: S311 - not for secrets
        whole = images[number % len(images)]
        data = damaged(whole, number)
        text = base64.b64encode(data if rng.random() < 0.5 else whole).decode()
        cell: Any = rng.choice(
            (
                data, bytearray(data), text, damaged(text.encode(), number).decode("latin-1"),
                base64.encodebytes(data).decode(),
                f"data:image/png;base64,{text}", text[: rng.randrange(60)], f"/dev/{text[:3]}",
                "\0", "../" * 40, "x" * 5000,
                pathlib.Path("none.png"), number, float("nan"), None, [data], {"b64": text}, True,
            )
        )  # fmt: skip
        yield rng.choice(([cell], [whole, cell], [cell, whole, cell]))


def test_damaged_requests_are_answered_or_refused(classifier: PromptTunedClassifier) -> None:
    images = []
    for form in ("PNG", "JPEG", "GIF"):
        stream = io.BytesIO()
        Image.fromarray(np.arange(99, dtype=np.uint8).reshape(9, 11)).save(stream, form)
        images.append(stream.getvalue())

    def predict(cells: list[Any]) -> None:
        answer = classifier.predict(None, pd.DataFrame({"image": pd.Series(cells, dtype=object)}))
        assert len(answer) == len(cells)
        assert answer[["p_a", "p_b"]].sum(axis=1).between(0.999, 1.001).all()

    taken = call_all(predict, requests(images), (ValueError,))
    assert 0 < taken < 1200
