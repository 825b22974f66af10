"""Is a description nearer to the images of its class than to others', and is it an outlier in that?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from clinprompt.knowledge.images.cached import CachedSpace, Images
from clinprompt.knowledge.settle import Sample
from clinprompt.knowledge.statement import Assessment

SPLIT = "train"  # never another: what is chosen by validation or test images would flatter the numbers on them
MARGIN, OUTLIER, UNGROUNDED = "margin", "margin_z", "ungrounded"
SCORES = (MARGIN, OUTLIER)
BOUND = -3.0  # of the robust z-score: further below the class's median, a description is an outlier
_FEWEST = 5  # descriptions of a class in which one can stand out
_SIGMA = 1.4826  # of a normal distribution, by its median absolute deviation


def ground(samples: Sequence[Sample], classes: Sequence[str], space: CachedSpace, reject: bool) -> list[Assessment]:
    """The assessments of samples that were settled, in their order, with the scores `SCORES`.

    An outlier among the accepted of its class is rejected if `reject`, and else goes to review; a person's decision
    stands. Of a class that is none of `classes`, as a novel one, no image is looked at: its samples stay as they are.
    """
    seen = [sample for sample in samples if sample.class_id in classes]
    grounded = iter(_of_seen(seen, classes, space, reject) if seen else [])
    return [next(grounded) if sample.class_id in classes else sample.verdict for sample in samples]


def _of_seen(samples: Sequence[Sample], classes: Sequence[str], space: CachedSpace, reject: bool) -> list[Assessment]:
    margins_of_all = margins(
        space.texts([sample.text for sample in samples]),
        np.array([list(classes).index(sample.class_id) for sample in samples]),
        space.images(SPLIT, classes),
    )
    outlying = np.full(len(samples), np.nan)
    for label in classes:
        of_class = np.array([i for i, s in enumerate(samples) if s.class_id == label and s.verdict.accepted], dtype=int)
        outlying[of_class] = robust_z(margins_of_all[of_class])
    return [
        _grounded(sample.verdict, float(margin), float(z), reject)
        for sample, margin, z in zip(samples, margins_of_all, outlying, strict=True)
    ]


def with_outliers(table: pd.DataFrame, classes: Sequence[str], space: CachedSpace) -> pd.DataFrame:
    """A table of descriptions of the classes whose `review` names the outliers among the accepted, too."""
    verdicts = [
        Assessment(bool(row.accepted), _text(row.reason), {}, _text(row.review), _text(row.reviewed))
        for row in table[["accepted", "reason", "review", "reviewed"]].itertuples()
    ]
    samples = [Sample(*row) for row in zip(table["class"], table["text"], verdicts, strict=True)]
    told = [verdict.review for verdict in ground(samples, classes, space, reject=False)]
    return table.assign(review=pd.Series(told, index=table.index, dtype="str"))


def _text(cell: object) -> str | None:
    """A cell of a column of text that may be empty."""
    return cell if isinstance(cell, str) else None


def margins(texts: np.ndarray, labels: np.ndarray, images: Images) -> np.ndarray:
    """m_i = <t_i, v̄_c> - max over other classes k of <t_i, v̄_k>, float [N].

    Args:
        texts: unit features [N, e] of descriptions. labels: the numbers c of their classes [N].
        images: the support images; v̄_k is the mean of class k's unit features.
    """
    cosines = texts @ images.means.T
    own = cosines[np.arange(len(texts)), labels]
    others = cosines.copy()
    others[np.arange(len(texts)), labels] = -np.inf
    difference: np.ndarray = own - others.max(1)
    return difference


def robust_z(values: np.ndarray) -> np.ndarray:
    """(x - median) / (1.4826 MAD), MAD the median absolute deviation; NaN where there are too few, 0 where MAD is 0.

    The signal by which BiomedCoOp (Koleilat et al., CVPR 2025) drops outlying prompts, here within a class and of the
    margin, so that a class that lies near another loses no more descriptions than others.
    """
    if len(values) < _FEWEST:
        return np.full(len(values), np.nan)
    centred = values - np.median(values)
    deviation = _SIGMA * np.median(np.abs(centred))
    scaled: np.ndarray = centred / deviation if deviation > 0 else np.zeros(len(values))
    return scaled


def _grounded(verdict: Assessment, margin: float, z: float, reject: bool) -> Assessment:
    scores = {**verdict.scores, MARGIN: round(margin, 6)}
    if not np.isnan(z):
        scores[OUTLIER] = round(z, 4)
    verdict = replace(verdict, scores=scores)
    if not verdict.accepted or verdict.reviewed or np.isnan(z) or z >= BOUND:
        return verdict
    if reject:
        return replace(verdict, accepted=False, reason=UNGROUNDED)
    return replace(verdict, review=verdict.review or "far from the images of its class")
