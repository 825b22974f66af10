"""Image folders: `<class>/*`, `<split>/<class>/*` or `<class>/<split>/*`, or as the card's pattern tells."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from clinprompt.data.card import Card
from clinprompt.data.layouts import levels as pattern
from clinprompt.data.layouts.base import ImageRecord, Layout, Listing, check_splits, inside, source_of
from clinprompt.data.layouts.levels import Place
from clinprompt.data.layouts.tree import Tree, scan
from clinprompt.data.layouts.words import Splits, are_folds, listed, mask_marks, means_masks, split_of
from clinprompt.errors import DataRejected, InputMissing
from clinprompt.schema import Section


def _one_group(expression: str) -> str:
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    if groups != 1:
        raise ValueError(f"must have one group in parentheses, the patient, found {groups}")
    return expression


class PatientInName(Section):
    """The patient stands in the file's name: a regular expression for its beginning, whose group is the patient."""

    name: Annotated[str, Field(min_length=1), AfterValidator(_one_group)]


class FolderOptions(Section):
    """How the folders are to be read; by default the customary ways are recognised.

    `folders`: the pattern of an image's folder, of {split}, {class}, {patient}, {study}, names, `*` (any folder) and,
    at its end, `**` (any number of them). `series`: whether a folder that holds one DICOM series is a volume, or its
    slices are pictures, as they are by default where the pattern has {study}. `splits`: the folder of each split, as
    {train: Training, test: Testing}. `patient`: `folder` where the folders in the class folders are the patients,
    {name: "(p[0-9]+)_"} where the files' names begin with them. `exclude`: globs of what to leave out. `masks`:
    whether files that look like masks of others are refused, or kept as images.
    """

    folders: str | None = None
    series: Literal["volume", "slices"] | None = None
    splits: Splits | None = None
    patient: Literal["folder"] | PatientInName | None = None
    exclude: list[Annotated[str, Field(min_length=1)]] = []
    masks: Literal["refuse", "keep"] = "refuse"

    _splits = field_validator("splits")(check_splits)

    @field_validator("folders")
    @classmethod
    def _is_pattern(cls, folders: str | None) -> str | None:
        if folders is not None:
            pattern.parse(folders)
        return folders

    @model_validator(mode="after")
    def _one_patient(self) -> "FolderOptions":
        if self.patient is not None and self.folders is not None and pattern.PATIENT in pattern.parse(self.folders):
            raise ValueError("the pattern in `folders` tells the patient already; remove `patient`")
        return self

    @property
    def slices(self) -> bool:
        """Whether each file of a DICOM series is a picture."""
        in_studies = self.folders is not None and pattern.STUDY in pattern.parse(self.folders)
        return in_studies if self.series is None else self.series == "slices"

    def levels(self, folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """The levels of the pattern that these folders of images are held against."""
        in_folders = self.patient == "folder"
        if self.folders is None:
            return pattern.default_levels(folders, self.splits, in_folders)
        return (*pattern.parse(self.folders), pattern.PATIENT) if in_folders else pattern.parse(self.folders)


def read(root: Path, card: Card, options: FolderOptions) -> Listing:
    """List the images of all class folders. Folders without images are passed over.

    Raises:
        DataRejected: a folder that is no class of the card, one that the pattern does not tell of, an image outside
            the class folders or one that looks like a mask of another, a path that leaves the root through a link.
        InputMissing: a split's folder of the option `splits` is not there.
    """
    if not root.is_dir():
        raise DataRejected(f"{root} is a file; the reader 'folder' expects a folder of class folders.")
    tree = scan(root, options.exclude, options.slices)
    levels = options.levels(tree.folders())
    _refuse_missing_splits(root, tree, options.splits)
    places = {parts: _place(root, tree, levels, parts, card, options) for parts in tree.folders()}
    if options.masks == "refuse":
        refuse_masks(tree, levels)
    records = [_record(root, path, places[PurePosixPath(path).parent.parts], card, options) for path in tree.images]
    return Listing(records, dict(tree.skipped), tree.excluded)


def refuse_masks(tree: Tree, levels: Sequence[str]) -> None:
    """Refuse images that look like masks of others: `x_mask.png` beside `x.png`, or a folder called masks.

    Raises:
        DataRejected: names the first and says what to write into the card.
    """
    keep = "or reader.masks: keep where they are images of the dataset"
    for parts in tree.folders():
        folder = next((part for part in pattern.free_parts(levels, parts) if means_masks(part)), None)
        if folder is not None:
            raise DataRejected(
                f"{'/'.join(parts)}: {folder!r} looks like a folder of masks; write reader.exclude: "
                f"[{glob.escape(folder)!r}] into the card to leave it out, {keep}."
            )
    masks = masks_beside_images(tree)
    if masks:
        path, (image, _) = next(iter(masks.items()))
        globs = sorted({mark for _, mark in masks.values()})
        raise DataRejected(
            f"{path}: looks like a mask of {image} beside it, as do {len(masks) - 1} others; write reader.exclude: "
            f"{globs} into the card to leave them out, {keep}."
        )


def masks_beside_images(tree: Tree) -> dict[str, tuple[str, str]]:
    """The images that look like masks: path -> the stem of the image that each belongs to, and a glob of its like."""
    stems: dict[str, dict[str, str]] = {}
    for path in tree.images:
        file = PurePosixPath(path)
        stems.setdefault(str(file.parent), {})[file.stem] = path
    return {
        paths[stem]: mark for paths in stems.values() for stem, mark in mask_marks(paths).items()
    }  # fmt: skip


LAYOUT = Layout(FolderOptions, read)


def _place(
    root: Path, tree: Tree, levels: tuple[str, ...], parts: tuple[str, ...], card: Card, options: FolderOptions
) -> Place:
    place = pattern.match(levels, parts, options.splits)
    folder = "/".join(parts)
    upto = "/".join(parts[: place.depth + 1])
    if place.problem == "shallow":
        image = next(p for p in tree.images if PurePosixPath(p).parent.parts == parts)
        what = f"the folders '{'/'.join(levels)}'" if options.folders or options.patient else "the class folders"
        if (root / image).is_dir():
            raise DataRejected(
                f"{image}: this folder holds one DICOM series, which is a volume, and lies beside {what}; write "
                "reader.series: slices into the card where each of its files is a picture."
            )
        raise DataRejected(f"{image}: this image lies beside {what}; move it into one of them.")
    if place.problem == "split":
        names = {p[place.depth] for p in tree.folders() if len(p) > place.depth}
        known = ", ".join(sorted(name for name in names if split_of(name, options.splits)))
        raise DataRejected(
            f"{upto}: lies beside the split folders {known} and is none; remove it, name the splits' folders in the "
            f"card under reader.splits, or leave it out with reader.exclude: ['{parts[place.depth]}']."
        )
    if place.problem == "name":
        raise DataRejected(
            f"{upto}: is not the folder {levels[place.depth]!r} that reader.folders in the card tells of; correct it, "
            f"or leave this one out with reader.exclude: ['{parts[place.depth]}']."
        )
    if card.class_of(place.label) is None:
        raise DataRejected(f"{place.class_folder}: {_no_class(tree, levels, place, parts, card)}")
    if place.problem == "deep":
        above = parts[: place.depth]
        siblings = {p[place.depth] for p in tree.folders() if len(p) > place.depth and p[: place.depth] == above}
        first = [parts[place.depth], *sorted(siblings - {parts[place.depth]})]
        raise DataRejected(
            f"{folder}: this folder of images lies deeper than '{'/'.join(levels)}'; "
            f"{pattern.advice(levels, parts, first)}."
        )
    return place


def _no_class(tree: Tree, levels: tuple[str, ...], place: Place, parts: tuple[str, ...], card: Card) -> str:
    """The sentence about a folder that stands where the classes should, and is none."""
    known = f"{place.label!r} is no class of the card {card.name} (its classes: {', '.join(card.named_ids)})."
    if levels[0] == pattern.CLASS and are_folds({p[0] for p in tree.folders()}):
        return (
            f"{known} It looks like a fold: say under reader.splits which folds are train, val and test, as "
            "{train: [fold1, fold2, fold3], val: fold4, test: fold5}, or write reader.folders: '*/{class}' and "
            "split.rule: stratified where the folds are not to be kept."
        )
    deeper = [i for i, part in enumerate(parts) if card.class_of(part) is not None]
    if deeper:
        levels_found = [pattern.ANY] * deeper[0] + [pattern.CLASS]
        return f"{known} {parts[deeper[0]]!r}, deeper in it, is one: is it reader.folders: '{'/'.join(levels_found)}'?"
    return f"{known} Write it under `aliases` of the class that it means, remove the folder, or list it in exclude."


def _refuse_missing_splits(root: Path, tree: Tree, splits: Splits | None) -> None:
    if not tree.images:
        return
    names = {part for parts in tree.folders() for part in parts}
    present = {split_of(name, splits) for name in names}
    for split, folders in (splits or {}).items():
        if split not in present:
            raise InputMissing(f"{root / listed(folders)[0]}, the folder of the {split} split, does not exist.")


def _record(root: Path, path: str, place: Place, card: Card, options: FolderOptions) -> ImageRecord:
    normal, file = inside(root, path, path)
    patient = place.patient
    if isinstance(options.patient, PatientInName):
        found = re.match(options.patient.name, PurePosixPath(path).stem)
        if found is None:
            raise DataRejected(
                f"{path}: the name does not begin as reader.patient.name in the card says, {options.patient.name!r}; "
                "correct it, or write | at its end where images without that beginning are of unknown patients."
            )
        patient = found[1]
    facts = {name: told for name, told in (("patient", patient), ("study", place.study)) if told}
    return ImageRecord(normal, source_of(file, normal, card), place.label, normal, place.split, facts)
