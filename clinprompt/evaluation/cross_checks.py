"""Classical tests of two models on the same images, beside the gate's own: told with a decision, never its rule."""

import math

import numpy as np
from scipy.special import ndtr
from scipy.stats import binomtest, rankdata

from clinprompt.evaluation.decision import CrossCheck
from clinprompt.evaluation.intervals import DECIMALS
from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.paired import same_images
from clinprompt.evaluation.predictions import Predictions


def cross_checks(champion: Predictions | None, challenger: Predictions) -> list[CrossCheck]:
    """McNemar's test of the accuracy and DeLong's of the AUROC; none where the two can't be compared."""
    if champion is None or not same_images(champion, challenger) or not len(challenger):
        return []
    return [mcnemar(champion, challenger), delong(champion, challenger)]


def mcnemar(champion: Predictions, challenger: Predictions) -> CrossCheck:
    """McNemar's exact test (1947) over patients: on how many has each more images right than the other?

    With one image per patient it is the usual one; with several the images of a patient are not taken for independent.
    """
    _, owner = np.unique(challenger.patients, return_inverse=True)
    hits = [(model.probabilities.argmax(axis=1) == model.labels).astype(np.int64) for model in (champion, challenger)]
    more = np.bincount(owner, hits[1] - hits[0])
    wins, losses = int((more > 0).sum()), int((more < 0).sum())
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return CrossCheck(
        test="McNemar",
        says=f"the challenger has more images right of {wins} {challenger.unit}, the champion of {losses}",
        difference=round(float(np.mean(hits[1] - hits[0])), DECIMALS),
        p=round(p, DECIMALS),
    )


def delong(champion: Predictions, challenger: Predictions) -> CrossCheck:
    """DeLong's two-sided test (1988) on the mean one-vs-rest AUROC, clustered by patient (Obuchowski 1997)."""
    parts = [_placements(model) for model in (champion, challenger)]
    difference = float(parts[1][0] - parts[0][0])
    _, owner = np.unique(challenger.patients, return_inverse=True)
    variance = float((np.bincount(owner, parts[1][1] - parts[0][1]) ** 2).sum())
    p: float | None
    if not math.isfinite(difference) or not math.isfinite(variance):
        return CrossCheck(test="DeLong", says="a class has no image", difference=None, p=None)
    if variance <= 0:
        p = 1.0 if abs(difference) < 10**-DECIMALS else 0.0
    else:
        p = 2 * float(ndtr(-abs(difference) / math.sqrt(variance)))
    says = "AUROC, the challenger's minus the champion's"
    return CrossCheck(test="DeLong", says=says, difference=round(difference, DECIMALS), p=round(p, DECIMALS))


def _placements(model: Predictions) -> tuple[float, Floats]:
    """The mean AUROC, and what each image adds to its deviation [n]: their squares' sum is DeLong's variance."""
    total, share = 0.0, np.zeros(len(model))
    for c, scores in enumerate(model.probabilities.T):
        inside = model.labels == c
        m, n = int(inside.sum()), int((~inside).sum())
        if not m or not n:
            return math.nan, share
        ranks = rankdata(scores)
        wins = (ranks[inside] - rankdata(scores[inside])) / n
        losses = 1 - (ranks[~inside] - rankdata(scores[~inside])) / m
        area = float(wins.mean())
        share[inside] += (wins - area) / math.sqrt(m * max(1, m - 1))
        share[~inside] += (losses - area) / math.sqrt(n * max(1, n - 1))
        total += area
    return total / len(model.classes), share / len(model.classes)
