"""What the DICOM headers of a folder's images tell of it: which folders are studies, and which facts there are."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from clinprompt.data.dicom_facts import header_facts
from clinprompt.data.formats import DICOM, NIFTI, suffix_of
from clinprompt.data.layouts.levels import ANY, CLASS, STUDY
from clinprompt.data.layouts.tree import Tree

Headers = Mapping[str, Mapping[str, str]]  # of each DICOM image, by its path

_FACTS = ("patient", "study", "site", "sex", "age", "pixel_spacing")
_IDS = ("patient", "study")  # which tell nothing where all images have the same
_FRAMES = "frames"


def read_headers(root: Path, images: Sequence[str]) -> Headers:
    """The facts that headers tell, of the images that are DICOM files or series."""
    told = {path: header_facts(root / path, (*_FACTS, _FRAMES)) for path in images}
    return {path: facts for path, facts in told.items() if facts}


def series_folders(root: Path, tree: Tree) -> list[str]:
    """The folders that were taken for one image each, since they hold one DICOM series."""
    return [path for path in tree.images if (root / path).is_dir()]


def has_volumes(tree: Tree) -> bool:
    """Whether there are files that can be nothing but volumes."""
    return any(suffix_of(path) in (*NIFTI.suffixes, *DICOM.suffixes) for path in tree.images)


def levels_by_study(
    tree: Tree, headers: Headers, told: Sequence[str], levels: Sequence[str], free: Sequence[int]
) -> list[str] | None:
    """The levels where headers tell what the `free` ones are: of these the first holds the classes, one the studies.

    None where they don't tell.

    Args:
        told: the facts that `facts_told` gave.
    """
    studies = [level for level in free if one_study_each(tree, headers, level)]
    patients = [level for level in free if _is_one_each(tree, headers, level, "patient")]
    several = [level for level in free if level not in studies and not ("patient" in told and level in patients)]
    if several != [free[0]]:
        return None
    found = [ANY if level in free else name for level, name in enumerate(levels)]
    found[free[0]] = CLASS
    if studies:
        found[studies[0]] = STUDY
    return found


def one_study_each(tree: Tree, headers: Headers, level: int) -> bool:
    """Whether each folder at a level holds images of one study alone, as headers tell."""
    return _is_one_each(tree, headers, level, "study")


def _is_one_each(tree: Tree, headers: Headers, level: int, fact: str) -> bool:
    held: dict[tuple[str, ...], set[str | None]] = {}
    for path in tree.images:
        held.setdefault(tuple(path.split("/")[: level + 1]), set()).add(headers.get(path, {}).get(fact))
    return all(len(ids) == 1 and None not in ids for ids in held.values())


def facts_told(headers: Headers, without: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """What a card's `metadata.dicom` may name, and sentences on it and on what stops ingest."""
    if not headers:
        return [], []
    values = {fact: {facts[fact] for facts in headers.values() if fact in facts} for fact in _FACTS}
    told = [fact for fact in _FACTS if len(values[fact]) > (fact in _IDS) and fact not in without]
    doubt = "" if "patient" in without else _doubt(headers, values["patient"])
    told = [fact for fact in told if not (doubt and fact == "patient")]
    said = [f"From the DICOM headers are taken: {', '.join(told)}."] if told else []
    said += [doubt] if doubt else []
    frames = sum(facts.get(_FRAMES, "1") not in ("0", "1") for facts in headers.values())
    if frames:
        said.append(
            f"{frames} files hold several frames: write dicom: {{frames: first}}, middle or each into the card."
        )
    burned = sum(facts["burned_in_annotation"] == "YES" for facts in headers.values())
    if burned:
        said.append(
            f"{burned} headers say that text is burned into the pixels: leave those files out, or write "
            "dicom: {burned_in: keep} into the card where the text tells no one."
        )
    return told, said


def _doubt(headers: Headers, patients: Collection[str]) -> str:
    """Why the patients of headers can't be those of the images, as after some anonymisers; "" where they may be."""
    if len(patients) == 1:
        return "The headers' PatientID is the same in all images, and is not taken for the patient."
    of_study: dict[str, set[str]] = {}
    for facts in headers.values():
        of_study.setdefault(facts.get("study", ""), set()).add(facts.get("patient", ""))
    if any(len(ids - {""}) > 1 for study, ids in of_study.items() if study):
        return "The headers' PatientID differs within a study, and is not taken for the patient."
    return ""
