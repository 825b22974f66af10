"""One model's probabilities on the images of one split, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinprompt.evaluation.metrics import Floats, Ints


@dataclass(frozen=True)
class Predictions:
    """What the metrics need.

    Attributes:
        labels: [n] class indices.
        probabilities: [n, C].
        patients: [n] who the image is of; the unit that the bootstrap draws.
        classes: the C class ids in the card's order.
    """

    labels: Ints
    probabilities: Floats
    patients: NDArray[np.str_]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: NDArray[np.bool_]) -> "Predictions":
        """The rows at which `mask` [n] is true."""
        return Predictions(self.labels[mask], self.probabilities[mask], self.patients[mask], self.classes)
