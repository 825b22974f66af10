"""What the folders on the way to an image mean: a pattern such as `{split}/{class}/{study}`, and its matching."""

from collections.abc import Sequence
from dataclasses import dataclass

from clinprompt.data.layouts.words import Splits, are_folds, are_splits, means_masks, means_pictures, split_of
from clinprompt.data.names import matching_key

SPLIT, CLASS, PATIENT, STUDY, ANY, REST = "{split}", "{class}", "{patient}", "{study}", "*", "**"
_NAMED = (SPLIT, CLASS, PATIENT, STUDY)


@dataclass(frozen=True)
class Place:
    """What the folders of an image say: its class's folder, split, patient and study; or how they differ from the
    pattern.

    Attributes:
        class_folder: the path down to the class.
        depth: how many levels fit; where `problem` is set, the next one does not.
        problem: "shallow", "deep", "split" (no split of that name) or "name" (another folder is expected).
    """

    label: str = ""
    class_folder: str = ""
    split: str | None = None
    patient: str | None = None
    study: str | None = None
    depth: int = 0
    problem: str | None = None


def parse(pattern: str) -> tuple[str, ...]:
    """The levels of a pattern.

    Raises:
        ValueError: `{class}` is not there, a level comes twice or is none, `**` is not the last.
    """
    levels = tuple(pattern.strip("/").split("/"))
    for level in levels:
        if level.startswith("{") and level not in _NAMED:
            raise ValueError(f"{level!r} is none of {', '.join(_NAMED)}, {ANY}, {REST} and a folder's name")
        if not level or level in (".", ".."):
            raise ValueError(f"{pattern!r} holds a level without a name")
    if levels.count(CLASS) != 1 or any(levels.count(level) > 1 for level in _NAMED):
        raise ValueError(f"{CLASS} must stand in it once, {SPLIT}, {PATIENT} and {STUDY} at most once")
    if REST in levels[:-1]:
        raise ValueError(f"{REST} goes last")
    return levels


def default_levels(folders: Sequence[tuple[str, ...]], splits: Splits | None, has_patients: bool) -> tuple[str, ...]:
    """The customary pattern that folders of images follow: splits above the classes or below them, or none."""
    first = {parts[0] for parts in folders if parts}
    second = {parts[1] for parts in folders if len(parts) > 1}
    levels: tuple[str, ...] = (CLASS,)
    if are_splits(first, splits):
        levels = (SPLIT, CLASS)
    elif are_splits(second, splits) and all(split_of(name, splits) for name in second):
        levels = (CLASS, SPLIT)
    return (*levels, PATIENT) if has_patients else levels


def match(levels: Sequence[str], parts: Sequence[str], splits: Splits | None) -> Place:
    """Hold the folders of an image against a pattern."""
    found: dict[str, str] = {}
    class_folder = ""
    for depth, level in enumerate(levels):
        if level == REST:
            break
        if depth == len(parts):
            return Place(depth=depth, problem="shallow")
        if level == SPLIT and split_of(parts[depth], splits) is None:
            return Place(depth=depth, problem="split")
        if level not in (*_NAMED, ANY) and matching_key(level) != matching_key(parts[depth]):
            return Place(depth=depth, problem="name")
        found[level] = parts[depth]
        if level == CLASS:
            class_folder = "/".join(parts[: depth + 1])
    split = split_of(found[SPLIT], splits) if SPLIT in found else None
    problem = "deep" if len(parts) > len(levels) and levels[-1] != REST else None
    return Place(found[CLASS], class_folder, split, found.get(PATIENT), found.get(STUDY), len(levels), problem)


def free_parts(levels: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The folders of an image that the pattern leaves open: not named in it, no split and no class."""
    free = (PATIENT, STUDY, ANY, REST)
    return [part for depth, part in enumerate(parts) if depth >= len(levels) or levels[depth] in free]


def advice(levels: Sequence[str], parts: Sequence[str], siblings: Sequence[str]) -> str:
    """What to write into the card where folders lie deeper than the pattern.

    Args:
        siblings: the folders beside the first one that is too deep, itself among them.
    """
    pattern = "/".join(levels)
    masks, pictures = [n for n in siblings if means_masks(n)], [n for n in siblings if means_pictures(n)]
    if pictures or masks:
        kept = (pictures or [n for n in siblings if n not in masks] or [ANY])[0]
        left = f" and reader.exclude: {masks}" if masks else ""
        return f"where {kept!r} holds the images write reader.folders: '{pattern}/{kept}'{left} into the card"
    if are_folds(siblings):
        return f"folders of folds that mean nothing are written as reader.folders: '{pattern}/*' in the card"
    choices = [f"reader.folders: '{pattern}/**' where such folders mean nothing"]
    if PATIENT not in levels:
        choices.insert(0, "reader.patient: folder where they are the patients")
    return f"write into the card {', '.join(choices)}, or reader.exclude: ['{siblings[0]}'] to leave it out"
