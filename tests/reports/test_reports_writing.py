"""Reports: the published sentence to the letter, and normal values as a plain regression has them."""

import numpy as np
from sklearn.linear_model import LinearRegression

from clinprompt.data.card import Measure
from clinprompt.reports.normative import NormativeModel
from clinprompt.reports.subjects import Subjects
from clinprompt.reports.writing import PHRASINGS, Facts, published

MEASURES = (
    Measure(column="hippocampus", name="Hippocampal Vol", unit="mm3"),
    Measure(column="v", name="Ventricular size"),
)


def test_the_published_sentence_and_what_is_absent() -> None:
    facts = Facts("MCI", MEASURES, (8441.0, float("nan")))
    assert published(facts) == "A photo of MCI: Hippocampal Vol: 8441.00, Ventricular size: Data unavailable"
    assert published(Facts("MCI", (), ())) == "A photo of MCI"
    for sentence in PHRASINGS["varied"]:
        assert "unavailable" in sentence(facts)
        assert "nan" not in sentence(facts)
        assert "MCI" not in sentence(Facts(None, MEASURES, (1.0, 2.0)))


def test_normal_values_are_those_of_a_linear_regression() -> None:
    rng = np.random.default_rng(0)
    age, sex = rng.uniform(60, 90, 30), tuple(rng.choice(["F", "M"], 30))
    male = np.array([float(s == "M") for s in sex])
    measures = np.stack([5000 - 20 * age + 300 * male + rng.normal(0, 50, 30), rng.normal(size=30)], axis=1)
    subjects = Subjects(("NC",) * 30, measures, age, sex)
    design = np.stack([age, male], axis=1)
    residuals = measures[:, 0] - LinearRegression().fit(design, measures[:, 0]).predict(design)
    expected = residuals / np.sqrt((residuals**2).sum() / 27)
    np.testing.assert_allclose(NormativeModel.fit(subjects).z(subjects)[:, 0], expected, rtol=1e-6)
