"""Verify a registered version before it gets the alias `champion`: load it and predict with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clinprompt.errors import InputCorrupt, InputMissing
from registry.consumer import Champion


def verify(registered: Champion, sample: Sequence[bytes] = ()) -> None:
    """Load a version as a consumer does, every digest checked, and classify its input example and the sample.

    Raises:
        InputMissing: a file or the input example is not there.
        InputCorrupt: it has other digests, or predicts no probabilities.
    """
    import pandas as pd

    example: Any = registered.model.input_example
    if example is None:
        raise InputMissing(f"Version {registered.version} of {registered.name!r} has no input example.")
    columns = [f"p_{name}" for name in registered.classes]
    images = [*example["image"], *sample]
    table: Any = registered.model.predict(pd.DataFrame({"image": images}))
    values = table[columns].to_numpy(dtype=np.float64)
    if not (np.isfinite(values).all() and np.allclose(values.sum(axis=1), 1, atol=1e-6) and len(values)):
        raise InputCorrupt(
            f"Version {registered.version} of {registered.name!r} does not predict probabilities; it was not made the "
            "champion. Train it again."
        )
