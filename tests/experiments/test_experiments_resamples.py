"""Resamples draw whole patients, and are the same whatever fits in memory."""

import numpy as np
import pytest

from clinprompt.experiments import resamples
from clinprompt.experiments.resamples import draw


def weights_of(patients: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate(list(draw(patients, count)))


def test_whole_patients_are_drawn_as_many_as_there_are() -> None:
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    for counts in weights_of(patients, 50):
        by_patient = {name: set(counts[patients == name]) for name in "abc"}
        assert all(len(values) == 1 for values in by_patient.values())
        assert sum(values.pop() for values in by_patient.values()) == 3


def test_draws_do_not_depend_on_how_many_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = np.array([f"p{i // 2}" for i in range(40)])
    whole = weights_of(patients, 40)
    monkeypatch.setattr(resamples, "_CHUNK", 3 * len(patients))
    np.testing.assert_array_equal(weights_of(patients, 40), whole)
