"""Decoding in worker processes: the same pixels as in this process, and no worker that outlives its use."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from clinprompt.data.codecs import decode
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.errors import Interrupted
from clinprompt.features import image_batches
from clinprompt.features.image_batches import decoded

PREPROCESSING = Preprocessing(24, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(("workers", "ahead"), [(0, 0), (1, 0), (2, 0), (2, 2)])
def test_batches_hold_the_images_in_order_and_zeros_behind_them(
    images: dict[str, Path], workers: int, ahead: int
) -> None:
    items = list(images.items())
    seen: list[str] = []
    for ids, pixels in decoded(items, PREPROCESSING, "auto", batch_size=20, workers=workers, ahead=ahead):
        assert pixels.shape == (20, 3, 24, 24)
        for digest, row in zip(ids, pixels, strict=False):
            assert np.array_equal(row, PREPROCESSING.apply(decode(images[digest].read_bytes(), "auto")))
        assert not pixels[len(ids) :].any()
        seen += ids
    assert seen == list(images)


def test_no_images_are_no_batches() -> None:
    assert list(decoded([], PREPROCESSING, "auto", batch_size=4, workers=2, ahead=0)) == []


def test_a_killed_worker_ends_the_run_as_resumable(images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_batches, "decode_image", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(Interrupted):
        list(decoded(list(images.items()), PREPROCESSING, "auto", batch_size=20, workers=2, ahead=0))
