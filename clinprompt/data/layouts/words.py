"""What the names of folders and files mean: splits, folds, masks and the pictures beside them."""

import re
from collections.abc import Iterable

from clinprompt.data.names import matching_key

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
Splits = dict[str, str | list[str]]  # a card's `splits`: for each split the folder or word, or several

_SEPARATORS = re.compile(r"[\s_.-]+")
_FILLERS = ("dataset", "set", "data", "images", "image", "imgs", "img", "split", "folder")
_SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_FOLD = re.compile(
    r"(?:.*[\s_.-])?(?:k?folds?|cv|part|split|batch|chunk|archive|zip)[\s_.-]*\d+|\d+[\s_.-]*folds?", re.IGNORECASE
)
_PICTURES = {"image", "images", "img", "imgs", "picture", "pictures", "jpg", "jpeg", "png", "tif", "tiff", "original"}
_MASK = (
    "masks|mask|segmentations|segmentation|segmented|seg|groundtruth|ground[ _-]truth|gt|labels|label|annotations|"
    "annotation|annotated|overlays|overlay|contours|contour|superpixels|heatmaps|heatmap"
)
_MASK_WORD = re.compile(_MASK, re.IGNORECASE)  # a quick look first
_MASK_FOLDER = re.compile(rf"(?:.*[\s_.-])?(?:{_MASK})(?:[\s_.-].*)?", re.IGNORECASE)
_MASK_BEHIND = re.compile(rf"(?P<image>.+?)(?P<mark>[\s_.-]*(?:{_MASK}))(?:[\s_.-]*\d+)?", re.IGNORECASE)
_MASK_BEFORE = re.compile(rf"(?P<mark>(?:{_MASK})[\s_.-]+)(?P<image>.+)", re.IGNORECASE)


def split_words(splits: Splits | None) -> dict[str, str]:
    """Matching key of a word -> split, from a card's `splits`, as {train: Training, …}, or the customary ones."""
    if splits is None:
        return dict(_SPLIT_OF_WORD)
    return {matching_key(word): split for split, words in splits.items() for word in listed(words)}


def listed(words: str | list[str]) -> list[str]:
    """One word or several as a list."""
    return [words] if isinstance(words, str) else words


def split_of(name: str, splits: Splits | None) -> str | None:
    """The split that a folder's name or a cell means, or None.

    Without the option a name is taken by its meaning: `Train`, `training_set`, `test images` and `ValidationData` are
    splits, `trained` is none.
    """
    if splits is not None:
        return split_words(splits).get(matching_key(name))
    rest = _SEPARATORS.sub("", matching_key(name))
    while rest not in _SPLIT_OF_WORD:
        filler = next((word for word in _FILLERS if rest.endswith(word) and rest != word), None)
        if filler is None:
            return None
        rest = rest.removesuffix(filler)
    return _SPLIT_OF_WORD[rest]


def are_splits(names: Iterable[str], splits: Splits | None = None) -> bool:
    """Whether folders of these names are splits: one of them is for training, or for any of the splits named."""
    found = {split_of(name, splits) for name in names} - {None}
    return bool(found) if splits is not None else "train" in found


def are_folds(names: Iterable[str]) -> bool:
    """Whether folders of these names are folds or the parts of a download, as fold1 … fold5 or images_part_1 and 2."""
    names = list(names)
    return len(names) > 1 and all(_FOLD.fullmatch(name) for name in names)


def means_pictures(folder: str) -> bool:
    """Whether a folder is called images, img or the like: it holds the pictures, and its name says no more."""
    return matching_key(folder) in _PICTURES


def means_masks(folder: str) -> bool:
    """Whether a folder is called masks, segmentations, ground_truth, lung masks or the like."""
    return _MASK_FOLDER.fullmatch(folder) is not None


def mask_marks(stems: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Which of the files in one folder look like masks of others, all given without suffix.

    Returns:
        For each that does, the stem of its image and a glob of what marks it, as `*_mask*`.
    """
    present = set(stems)
    found: dict[str, tuple[str, str]] = {}
    for stem in sorted(filter(_MASK_WORD.search, present)):
        behind, before = _MASK_BEHIND.fullmatch(stem), _MASK_BEFORE.fullmatch(stem)
        if behind and behind["image"] in present:
            found[stem] = (behind["image"], f"*{behind['mark']}*")
        elif before and before["image"] in present:
            found[stem] = (before["image"], f"{before['mark']}*")
    return found
