"""What a tree of folders with images is taken for, or the question that it leaves open."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinprompt.data.layouts.base import counted
from clinprompt.data.layouts.folder import FolderOptions, masks_beside_images
from clinprompt.data.layouts.levels import ANY, CLASS, PATIENT, SPLIT, STUDY, default_levels, match
from clinprompt.data.layouts.tree import Tree, scan
from clinprompt.data.layouts.words import Splits, are_folds, are_splits, means_masks, means_pictures, split_of
from clinprompt.data.survey.base import BY_STUDY, NO_PATIENT, Answers, Finding
from clinprompt.data.survey.headers import (
    Headers,
    facts_told,
    has_volumes,
    levels_by_study,
    one_study_each,
    read_headers,
    series_folders,
)
from clinprompt.data.survey.patients import are_ids, prefix_of, say_patient
from clinprompt.errors import BadParams, DataRejected
from clinprompt.schema import check

_SHOWN = 4  # names in a message
_FEW = (
    "{root} holds {found} with images, expected at least two, one for each class; or list the images with their labels "
    "in a CSV file there."
)
_MOST_CLASSES = 20  # that have numbers for names and are still taken for classes


def look(root: Path, answers: Answers) -> Finding:
    """Say what a folder is taken for.

    Raises:
        DataRejected: it holds no class folders with images.
        BadParams: it could be several things; the message names the option that decides for each.
    """
    slices, of_series = _series(root, answers)
    tree, exclude, said = _without_masks(root, answers, slices == "slices")
    headers = read_headers(root, tree.images)
    splits: Splits | None = dict(answers.splits) or None
    told, of_headers = facts_told(headers, ("patient", "study") if answers.patient else ())
    levels = _levels(root, tree, headers, told, answers, splits)
    if "patient" in told and not answers.folders:  # the header's is one person's in all folders
        levels = tuple(STUDY if level == PATIENT else level for level in levels)
    places = [match(levels, parts, splits) for parts in tree.folders()]
    labels = sorted({place.label for place in places if place.problem is None})
    if len(labels) < 2:
        raise DataRejected(_FEW.format(root=root, found=f"{len(labels)} class folder{'s' * (len(labels) != 1)}"))
    _ask_for_masks(root, labels, answers)
    reader: dict[str, Any] = {"kind": "folder"}
    said = [f"{root} is taken for folders of the form {'/'.join(levels)}.", *of_series, *said]
    default = default_levels(tree.folders(), splits, has_patients=False)
    if levels == (*default, PATIENT):
        reader["patient"] = "folder"
    elif levels != default:
        reader["folders"] = "/".join(levels)
    if splits is not None:
        reader["splits"] = {split: names[0] if len(names) == 1 else names for split, names in answers.splits.items()}
    if slices:
        reader["series"] = slices
    patient = None if "patient" in told else _patient_in_names(root, tree, levels, answers)
    if patient is not None:
        reader["patient"] = {"name": patient}
        said.append(f"The patients are taken from the beginnings of the files' names, {patient!r}.")
    elif PATIENT not in levels and "patient" not in told:
        said.append(BY_STUDY if STUDY in levels or "study" in told else NO_PATIENT)
    said += of_headers
    if exclude:
        reader["exclude"] = exclude
    if answers.keep_masks:
        reader["masks"] = "keep"
    if tree.skipped:
        said.append(f"Files that are no images: {counted(tree.skipped)}.")
    metadata = {"dicom": told} if told else {}
    return Finding(reader, labels, {place.split for place in places if place.split}, said, metadata)


def _series(root: Path, answers: Answers) -> tuple[str, list[str]]:
    """What folders with one DICOM series hold, "slices" or "volume" ("" without such), and what is said of it."""
    tree = scan(root, answers.exclude)
    folders = series_folders(root, tree)
    if not folders:
        return "", []
    held = f"{len(folders)} folders hold one DICOM series each, as {folders[0]}:"
    if answers.series == "volume" or (not answers.series and has_volumes(tree)):
        return "volume", [f"{held} each is taken for one volume. --series slices takes its files for pictures."]
    return "slices", [f"{held} its files are taken for pictures. --series volume takes each folder for one volume."]


def _without_masks(root: Path, answers: Answers, slices: bool) -> tuple[Tree, list[str], list[str]]:
    """The tree without what looks like masks of other images, the globs that leave out, and what is said of it."""
    tree, exclude = scan(root, answers.exclude, slices), list(answers.exclude)
    if answers.keep_masks:
        return tree, exclude, []
    globs = {mark for _, mark in masks_beside_images(tree).values()}
    for parts in tree.folders():
        for i, part in enumerate(parts):
            beside = {other[i] for other in tree.folders() if len(other) > i and other[:i] == parts[:i]}
            if means_masks(part) and any(means_pictures(name) for name in beside):
                globs.add(glob.escape(part))
    if not globs:
        return tree, exclude, []
    exclude += sorted(globs)
    left = scan(root, exclude, slices)
    masks = len(tree.images) - len(left.images)
    said = f"{masks} images look like masks and are left out ({', '.join(sorted(globs))}); --keep-masks keeps them."
    return left, exclude, [said]


def _ask_for_masks(root: Path, labels: Sequence[str], answers: Answers) -> None:
    masks = [label for label in labels if means_masks(label)]
    if masks and len(masks) < len(labels) and not answers.keep_masks:
        raise BadParams(
            f"{root}: the folder {masks[0]!r} looks like one of masks, not like a class; --exclude "
            f"'{glob.escape(masks[0])}' leaves it out, --keep-masks keeps it as a class."
        )


def _levels(
    root: Path, tree: Tree, headers: Headers, told: Sequence[str], answers: Answers, splits: Splits | None
) -> tuple[str, ...]:
    folders = tree.folders()
    in_folders = "folder" if answers.patient == "folder" else None
    options = {"folders": answers.folders or None, "splits": splits, "patient": in_folders}
    if answers.folders or in_folders:
        return check(FolderOptions, options, "the command line").levels(folders)
    if not folders:
        raise DataRejected(f"{root} holds no image in a folder; other files: {counted(tree.skipped) or 'none'}.")
    depths = sorted({len(parts) for parts in folders})
    if len(depths) > 1:
        shallow, deep = (next("/".join(p) or "." for p in folders if len(p) == d) for d in (depths[0], depths[-1]))
        raise BadParams(
            f"{root}: images lie {depths[0]} and {depths[-1]} folders deep (in {shallow} and in {deep}); leave some "
            "out with --exclude GLOB, or say --folders, as '{class}/**' where the folders below the classes mean "
            "nothing, or '{class}/{patient}/**' where the first of them is the patient."
        )
    names = [sorted({parts[i] for parts in folders}) for i in range(depths[0])]
    for level in names:
        _refuse_stray(root, level, splits)
    levels = [_meaning(level, splits) for level in names]
    first = levels.index(SPLIT) + 1 if SPLIT in levels else 0
    levels[first:] = ["" if level == SPLIT else level for level in levels[first:]]
    if ANY in levels and splits is None:
        _ask_for_folds(root, levels, names)
    free = [i for i, level in enumerate(levels) if not level]
    by_study = levels_by_study(tree, headers, told, levels, free) if len(free) > 1 else None
    if by_study is not None:
        levels = by_study
    elif len(free) == 1:
        levels[free[0]] = CLASS
        _refuse_ids(root, names[free[0]], one_study_each(tree, headers, free[0]))
    elif len(free) == 2:
        two = _two(root, levels, free, folders, names)
        if answers.patient == "none":
            two = (ANY if two[0] == PATIENT else two[0], ANY if two[1] == PATIENT else two[1])
        levels[free[0]], levels[free[1]] = two
    elif not free:
        raise DataRejected(_FEW.format(root=root, found="1 class folder"))
    else:
        shown = "; ".join(f"level {i + 1}: {_some(level)}" for i, level in enumerate(names))
        raise BadParams(f"{root}: which folders are the classes? {shown}. Say it with --folders, as '*/{{class}}/*'.")
    return tuple(levels)


def _meaning(names: Sequence[str], splits: Splits | None) -> str:
    """What the names of one level mean: splits, folds, one folder around the rest; "" where they may be classes."""
    if are_splits(names, splits) and all(split_of(name, splits) for name in names):
        return SPLIT
    if are_folds(names):
        return ANY
    return names[0] if len(names) == 1 else ""


def _refuse_stray(root: Path, names: Sequence[str], splits: Splits | None) -> None:
    """Refuse a level where some folders are splits and others are not."""
    known = [name for name in names if split_of(name, splits)]
    stray = [name for name in names if name not in known]
    if stray and are_splits(names, splits) and (splits is not None or len(known) > 1):
        raise BadParams(
            f"{root}: {_some(known)} are taken for splits, but not {_some(stray)} beside them; leave these out with "
            f"--exclude '{stray[0]}', or say all with --train, --val and --test."
        )


def _ask_for_folds(root: Path, levels: Sequence[str], names: Sequence[Sequence[str]]) -> None:
    folds = names[levels.index(ANY)]
    if SPLIT in levels:
        raise BadParams(f"{root}: each of {_some(folds)} has splits of its own; give one of them instead of {root}.")
    pattern = "/".join(level or CLASS for level in levels)
    raise BadParams(
        f"{root}: {_some(folds)} look like folds. Say which are which split with --train, --val and --test, as --train "
        f"{folds[0]} --test {folds[-1]}, or pass over them with --folders '{pattern}'."
    )


def _refuse_ids(root: Path, names: Sequence[str], are_studies: bool) -> None:
    if say_patient(names) or (are_ids(names) and (are_studies or len(names) > _MOST_CLASSES)):
        raise BadParams(
            f"{root}: the folders {_some(names)} look like patients, not like classes; list the images with their "
            "labels in a CSV file (--table), or say --folders '{class}' where they are classes."
        )


def _two(
    root: Path,
    levels: Sequence[str],
    free: Sequence[int],
    folders: Sequence[tuple[str, ...]],
    names: Sequence[list[str]],
) -> tuple[str, str]:
    """What two levels of folders are that the names don't tell."""
    upper, lower = free
    pairs = {(parts[upper], parts[lower]) for parts in folders}
    has_one_parent = len(pairs) == len(names[lower])
    if say_patient(names[lower]) or (are_ids(names[lower]) and has_one_parent and not are_ids(names[upper])):
        return CLASS, PATIENT
    if say_patient(names[upper]) and not are_ids(names[lower]):
        return PATIENT, CLASS
    choices = []
    for what, (one, two) in {
        f"classes {_some(names[upper])} with a folder for each patient": (CLASS, PATIENT),
        f"classes {_some(names[upper])} with folders that mean nothing": (CLASS, ANY),
        f"classes {_some(names[lower])} in folders that mean nothing": (ANY, CLASS),
    }.items():
        pattern = [*levels]
        pattern[upper], pattern[lower] = one, two
        choices.append(f"{what}: --folders '{'/'.join(pattern)}'")
    raise BadParams(f"{root} could be several things; say which. {'; '.join(choices)}.")


def _patient_in_names(root: Path, tree: Tree, levels: Sequence[str], answers: Answers) -> str | None:
    """The regular expression of the patients in the files' names, as the user said or agreed to."""
    if answers.patient not in ("", "name", "none", "folder"):
        return answers.patient
    if PATIENT in levels or answers.patient == "none":
        return None
    seen = prefix_of(tree.images)
    if answers.patient == "name":
        if seen is None:
            raise BadParams(f"{root}: no id that repeats is seen in the files' names; give --patient an expression.")
        return seen.pattern
    if seen is not None:
        raise BadParams(
            f"{root}: the files' names begin with {seen.ids} ids that repeat, as {seen.example!r}. Are they the "
            "patients? Say --patient name (images of one patient then stay in one split), or --patient none."
        )
    return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
