"""One model's probabilities on the images of one split, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinprompt.evaluation.metrics import Floats, Ints
from clinprompt.evaluation.patients import PatientCount, Unit


@dataclass(frozen=True)
class Predictions:
    """What the metrics need.

    Attributes:
        labels: [n] class indices.
        probabilities: [n, C].
        patients: [n] who the image is of, or the image's id where that is not known; what intervals leave out in turn.
        classes: the C class ids in the card's order.
        known: [n] whether the patient is known; None: of all images.
    """

    labels: Ints
    probabilities: Floats
    patients: NDArray[np.str_]
    classes: tuple[str, ...]
    known: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, mask: NDArray[np.bool_]) -> "Predictions":
        """The rows at which `mask` [n] is true."""
        known = None if self.known is None else self.known[mask]
        return Predictions(self.labels[mask], self.probabilities[mask], self.patients[mask], self.classes, known)

    @property
    def patient_count(self) -> PatientCount:
        """How many patients are known, and of how many images none is."""
        known = np.ones(len(self), dtype=bool) if self.known is None else self.known
        return PatientCount(
            images=len(self), patients=len(set(self.patients[known])), without=int(np.count_nonzero(~known))
        )

    @property
    def unit(self) -> Unit:
        """What `patients` are called."""
        return self.patient_count.counted

    @property
    def patients_per_class(self) -> list[int]:
        """Of each class, how many patients have an image of it."""
        return [len(set(self.patients[self.labels == c])) for c in range(len(self.classes))]
