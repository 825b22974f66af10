"""Subjects of `brain-phantom-3d`: who they are, how far their disease has gone, and the brain that follows from it.

Classes overlap widely: a subject's structures vary more between subjects than the disease changes them. The sizes of
the effects are ours, chosen so that the task is hard; no cohort was fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinprompt.demo.volumes.anatomy import STRUCTURES
from clinprompt.demo.volumes.deformation import Deformation, deform, smooth_noise
from clinprompt.demo.volumes.scanners import SCANNERS, Pose, random_pose

CLASSES = ("nc", "mci", "ad")
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
MEASURES = ("hippocampus", "ventricles", "whole_brain", "entorhinal", "fusiform", "middle_temporal")

# In the order of STRUCTURES: what a disease of stage 1 makes of the volume's logarithm, ten years of age beyond 72, and
# the deviation between subjects.
_DISEASE = np.array([-0.30, 0.60, -0.35, -0.15, -0.16])
_AGE = np.array([-0.04, 0.18, -0.03, -0.02, -0.02])
_SPREAD = np.array([0.075, 0.20, 0.095, 0.06, 0.06])
_LEAST, _MOST = np.array([0.72, 0.65, 0.68, 0.8, 0.8]), np.array([1.25, 1.95, 1.3, 1.2, 1.2])

_STAGE = {"nc": 0.0, "mci": 0.5, "ad": 1.0}  # of the disease, on average
_STAGE_SPREAD = 0.2
_YEARLY = {"nc": 0.01, "mci": 0.06, "ad": 0.12}  # growth of the stage
_MMSE = {"nc": (29.0, 1.0), "mci": (27.2, 1.6), "ad": (23.2, 2.4)}  # mean and deviation of a class's typical subject
_MMSE_SLOPE = 11.0  # points for a hippocampus that is larger by e, against the class's typical one


@dataclass(frozen=True)
class Subject:
    """What all visits of a subject share.

    Attributes:
        stage: of the disease at the first visit: 0 is health, 1 a typical dementia.
        months: of the visits since the first.
        seed: of everything that is drawn for the subject.
    """

    number: int
    label: str
    split: str
    scanner: str
    sex: str
    age: int
    stage: float
    months: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """The subject's id, which tells nothing of its class."""
        return f"sub-{self.number:04d}"


@dataclass(frozen=True)
class Visit:
    """What is known of a subject at a visit: `volumes` in mm³ in the order of `MEASURES`."""

    age: int
    mmse: int
    volumes: tuple[float, ...]


def subjects(per_class: int, seed: int, scanners: Sequence[str] = tuple(SCANNERS)) -> list[Subject]:
    """Subjects of all classes, in an order without meaning; each split has its share of each class and scanner.

    Which scanners they are sent to changes nothing else about them.
    """
    rng = np.random.default_rng([seed, 21])
    numbers = iter(rng.permutation(per_class * len(CLASSES)))
    made = []
    for label in CLASSES:
        turn = 0
        for split, count in _counts(per_class).items():
            for _ in range(count):
                made.append(_subject(int(next(numbers)), label, split, turn, scanners[turn % len(scanners)], rng))
                turn += 1
    return sorted(made, key=lambda subject: subject.number)


def brain_at(subject: Subject, months: int) -> tuple[Deformation, Pose, Visit]:
    """A subject's brain at a visit, how it lies in the scanner, and what the visit's table says."""
    own = np.random.default_rng([subject.seed, 1])
    traits = own.standard_normal(len(STRUCTURES))
    noise = smooth_noise(own, 2.0)
    size = (1.0 if subject.sex == "M" else 0.965) * np.exp(own.normal(0, 0.018))
    then = np.random.default_rng([subject.seed, 2, months])
    age = subject.age + months / 12
    stage = subject.stage + _YEARLY[subject.label] * months / 12
    logs = _DISEASE * stage + _AGE * (age - 72) / 10 + _SPREAD * (traits + 0.05 * then.standard_normal(len(STRUCTURES)))
    brain = deform(np.clip(np.exp(logs), _LEAST, _MOST), noise)
    scale = float(np.clip(size * (1 - 0.012 * stage - 0.004 * (age - 72) / 10), 0.88, 1.04))
    volumes = dict(zip((*STRUCTURES, "whole_brain"), brain.volumes * scale**3, strict=True))
    # The hippocampus against the head it lies in: a small head has a small one, and is not ill.
    hippocampus = np.log(brain.volumes[0]) - _typical(subject.label)
    mean, spread = _MMSE[subject.label]
    mmse = mean + _MMSE_SLOPE * hippocampus - 0.2 * (months / 12) * stage + spread * then.standard_normal()
    facts = Visit(int(age), int(np.clip(round(mmse), 0, 30)), tuple(round(float(volumes[m]), 1) for m in MEASURES))
    return brain, random_pose(then, scale), facts


def _subject(number: int, label: str, split: str, turn: int, scanner: str, rng: np.random.Generator) -> Subject:
    again = (int(rng.choice([12, 24])),) if turn % 3 == 1 else ()
    return Subject(
        number=number,
        label=label,
        split=split,
        scanner=scanner,
        sex=str(rng.choice(["F", "M"])),
        age=int(np.clip(rng.normal(73 + 2 * _STAGE[label], 7), 55, 90)),
        stage=_STAGE[label] + _STAGE_SPREAD * float(rng.standard_normal()),
        months=(0, *again),
        seed=int(rng.integers(2**32)),
    )


def _counts(per_class: int) -> dict[str, int]:
    """How many subjects of a class each split has; never none."""
    val, test = (max(1, round(SHARES[split] * per_class)) for split in ("val", "test"))
    return {"train": per_class - val - test, "val": val, "test": test}


def _typical(label: str) -> float:
    """The logarithm of the hippocampal volume in mm³ of a class's typical subject, in a head as the template's."""
    return float(np.log(13500.0) + _DISEASE[0] * _STAGE[label])
