"""Verify a registered version before it gets the alias `champion`: load it and predict with it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clinprompt.errors import InputCorrupt, InputMissing
from registry.consumer import Champion

# Of a probability. Cached features may be of half the precision, and of another machine; another temperature, other
# weights or other classes are further off on some image of each class.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Sample:
    """Encoded images, and the probabilities [n, C] of them that the gate judged, classes in the model's order."""

    images: list[bytes] = field(default_factory=list)
    judged: np.ndarray | None = None


def verify(registered: Champion, sample: Sample | None = None) -> None:
    """Load a version as a consumer does, every digest checked, and classify its input example and the sample.

    Raises:
        InputMissing: a file, the input example or a backbone that is no part of the model is not there.
        InputCorrupt: it has other digests, predicts no probabilities, or others than those that the gate judged.
    """
    import pandas as pd

    try:
        example: Any = registered.model.input_example
    except ValueError as error:  # the served code's own words, which say what to do
        raise InputMissing(f"Version {registered.version} of {registered.name!r} can't be loaded: {error}") from None
    if example is None:
        raise InputMissing(f"Version {registered.version} of {registered.name!r} has no input example.")
    columns = [f"p_{name}" for name in registered.classes]
    sample = Sample() if sample is None else sample
    images = [*example["image"], *sample.images]
    table: Any = registered.model.predict(pd.DataFrame({"image": images}))
    values = table[columns].to_numpy(dtype=np.float64)
    if not (np.isfinite(values).all() and np.allclose(values.sum(axis=1), 1, atol=1e-6) and len(values)):
        raise InputCorrupt(
            f"Version {registered.version} of {registered.name!r} does not predict probabilities; it was not made the "
            "champion. Train it again."
        )
    if sample.judged is None:
        return
    apart = float(np.abs(values[len(values) - len(sample.images) :] - sample.judged).max(initial=0))
    if apart > TOLERANCE:
        raise InputCorrupt(
            f"Version {registered.version} of {registered.name!r} serves probabilities that differ by {apart:.2g} from "
            "those that the gate judged; it was not made the champion. Run `dvc repro`, so that the candidates are "
            "evaluated again."
        )
