"""The protocols, and which images each of a protocol's cells trains and tests on."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pandas as pd
from pydantic import Field, PositiveFloat, PositiveInt

from clinprompt.data.folds import folds
from clinprompt.data.support import in_drawing_order, support_set
from clinprompt.errors import BadParams, DataRejected
from clinprompt.knobs import Knobs
from clinprompt.params import Augmentation
from clinprompt.schema import Name, Section, check

Key = dict[str, int | float]
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Cell:
    """One training and what it is tested on.

    Attributes:
        key: what tells the cell from the protocol's others: the seed, and shots, fraction or fold.
        train, val: rows of the manifest.
        classes: the ids of the classes that it learns, in the card's order.
        tests: the classes of each test, by the test's name; the test split's images of these classes are the test.
    """

    key: Key
    train: pd.DataFrame
    val: pd.DataFrame
    classes: tuple[str, ...]
    tests: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class LeftOut:
    """A cell that can't be: its key, and why."""

    key: Key
    reason: str


class Budget(Section):
    """The same training for every method that descends a gradient, so that what is compared is not the schedule.

    Attributes:
        steps: of the optimiser, as nearly as whole epochs allow.
        batch_size: of every method; None: each keeps its own, and steps see unlike numbers of images.
        rates: factors of the method's own learning rate. Each is trained with the whole budget, and the one with the
            best balanced accuracy on the cell's validation images is tested; of equally good ones that with the
            smallest cross-entropy there.
    """

    steps: PositiveInt
    batch_size: PositiveInt | None = None
    rates: list[PositiveFloat] = Field([1.0], min_length=1)


class Protocol(Section):
    """What all protocols have.

    Attributes:
        preset: the paper whose published settings are trained with, of `tables/presets_*.yaml`; None: the methods' own.
        augmentation: of the training images that a method reads as pixels; None: the preset's, and where that has none
            or does not train the method, `training.augmentation`.
        budget: what every method gets alike, whatever its settings; None: the settings' own epochs.
        methods: methods' knobs in this protocol, which win over the preset, the card and the rest of params.yaml.
    """

    transfers: ClassVar[bool] = False  # whether what is trained must serve classes that it has not seen
    preset: Name | None = None
    augmentation: Augmentation | None = None
    budget: Budget | None = None
    methods: Knobs = {}

    @abstractmethod
    def cell(self, manifest: pd.DataFrame, classes: tuple[str, ...], key: Key) -> Cell:
        """The images of the cell with this key.

        Raises:
            DataRejected: there are too few.
        """

    def keys(self, seeds: Sequence[int]) -> Iterator[Key]:
        """The cells, seed by seed within each setting."""
        return ({"seed": seed} for seed in seeds)


class Full(Protocol):
    """The whole training split, every seed."""

    def cell(self, manifest: pd.DataFrame, classes: tuple[str, ...], key: Key) -> Cell:
        """All images."""
        train = support_set(manifest, classes, None, int(key["seed"]))
        return Cell(key, train, _split(manifest, "val"), classes, {"test": classes})


class FewShot(Protocol):
    """K images per class, every K with every seed; `val_shots` bounds the images per class that validate.

    As published (Biomed-DPT and BiomedCoOp): K of 1, 2, 4, 8, 16, and min(K, 4) of the validation split.
    """

    shots: list[PositiveInt] = Field(min_length=1)
    val_shots: PositiveInt

    def keys(self, seeds: Sequence[int]) -> Iterator[Key]:
        """Every K with every seed."""
        return ({"shots": shots, "seed": seed} for shots in self.shots for seed in seeds)

    def cell(self, manifest: pd.DataFrame, classes: tuple[str, ...], key: Key) -> Cell:
        """The support set of this K and seed, and the few images that validate."""
        shots, seed = int(key["shots"]), int(key["seed"])
        train, val = _few(manifest, classes, shots, min(shots, self.val_shots), seed)
        return Cell(key, train, val, classes, {"test": classes})


class BaseToNovel(Protocol):
    """K images of each of the first ceil(C / 2) classes of the card; tested on these and on the others.

    Each test has only the images and the classes of its half, as published.
    """

    transfers: ClassVar[bool] = True
    shots: PositiveInt
    val_shots: PositiveInt

    def cell(self, manifest: pd.DataFrame, classes: tuple[str, ...], key: Key) -> Cell:
        """The support set of the base classes."""
        base, novel = halves(classes)
        seed = int(key["seed"])
        train, val = _few(manifest, base, self.shots, min(self.shots, self.val_shots), seed)
        return Cell(key, train, val, base, {"base": base, "novel": novel})


class LabelEfficiency(Protocol):
    """Shares of each class's training images, every share with every seed; a smaller share is part of a larger one.

    Validation keeps its whole split.
    """

    fractions: list[Share] = Field(min_length=1)

    def keys(self, seeds: Sequence[int]) -> Iterator[Key]:
        """Every share with every seed."""
        return ({"fraction": share, "seed": seed} for share in self.fractions for seed in seeds)

    def cell(self, manifest: pd.DataFrame, classes: tuple[str, ...], key: Key) -> Cell:
        """The share of each class that the seed draws, at least one image."""
        train, seed = _split(manifest, "train"), int(key["seed"])
        parts = []
        for label in classes:
            images = in_drawing_order(train[train["label"] == label], seed)
            parts.append(images[: max(1, round(key["fraction"] * len(images)))])
        chosen = pd.concat(parts).sort_values("path", kind="stable").reset_index(drop=True)
        return Cell(key, chosen, _split(manifest, "val"), classes, {"test": classes})


class CrossValidation(Protocol):
    """The subjects of train and val in `folds` parts: each in turn validates, the others train; every fold, every seed.

    The test split is held out of all of them. The parts are the same for every seed and method.
    """

    folds: Annotated[int, Field(ge=2, le=100)]

    def keys(self, seeds: Sequence[int]) -> Iterator[Key]:
        """Every fold with every seed."""
        return ({"fold": fold, "seed": seed} for fold in range(self.folds) for seed in seeds)

    def cell(self, manifest: pd.DataFrame, classes: tuple[str, ...], key: Key) -> Cell:
        """All subjects but the fold's train, the fold's validate."""
        rows = manifest[manifest["split"].isin(("train", "val"))].sort_values("path", kind="stable")
        is_fold = folds(rows, classes, self.folds) == key["fold"]
        train, val = (rows[mask].reset_index(drop=True) for mask in (~is_fold, is_fold))
        return Cell(key, train, val, classes, {"test": classes})


PROTOCOLS: dict[str, type[Protocol]] = {
    "full": Full,
    "few_shot": FewShot,
    "base_to_novel": BaseToNovel,
    "label_efficiency": LabelEfficiency,
    "cross_validation": CrossValidation,
}


def check_protocol(name: str, value: Any) -> Protocol:
    """One protocol's knobs, as they stand under `protocols.<name>`.

    Raises:
        BadParams: there is no such protocol, or a key is unknown, missing or wrong.
    """
    if name not in PROTOCOLS:
        raise BadParams(f"params.yaml: protocols.names: there is no protocol {name!r}; known: {', '.join(PROTOCOLS)}.")
    return check(PROTOCOLS[name], value, "params.yaml", f"protocols.{name}")


def cells(
    protocol: Protocol, manifest: pd.DataFrame, classes: tuple[str, ...], seeds: Sequence[int]
) -> list[Cell | LeftOut]:
    """All cells of a protocol on a dataset; those for which there are too few images say so."""
    return [_cell(protocol.cell, manifest, classes, key) for key in protocol.keys(seeds)]


def halves(classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The base classes, the first ceil(C / 2), and the novel ones.

    Raises:
        DataRejected: there is only one base class, so that nothing can be learned.
    """
    first = math.ceil(len(classes) / 2)
    if first < 2:
        raise DataRejected(f"With {len(classes)} classes, base-to-novel would train on a single one.")
    return classes[:first], classes[first:]


def _cell(
    make: Callable[[pd.DataFrame, tuple[str, ...], Key], Cell],
    manifest: pd.DataFrame,
    classes: tuple[str, ...],
    key: Key,
) -> Cell | LeftOut:
    try:
        return make(manifest, classes, key)
    except DataRejected as error:
        return LeftOut(key, str(error))


def _few(
    manifest: pd.DataFrame, classes: Sequence[str], shots: int, val_shots: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    val = _split(manifest, "val")
    distinct = [val[val["label"] == label].drop_duplicates("id") for label in classes]
    chosen = pd.concat([in_drawing_order(images, seed)[:val_shots] for images in distinct])
    return support_set(manifest, classes, shots, seed), chosen.sort_values("path", ignore_index=True)


def _split(manifest: pd.DataFrame, split: str) -> pd.DataFrame:
    return manifest[manifest["split"] == split].sort_values("path", kind="stable").reset_index(drop=True)
