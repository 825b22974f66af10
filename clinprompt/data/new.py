"""`python -m clinprompt.data.new NAME FOLDER`: look at a folder of images, say what it is, and write its card."""

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from clinprompt import cli
from clinprompt.data.card import Card
from clinprompt.data.dicom_facts import with_header_facts
from clinprompt.data.formats import SUFFIXES
from clinprompt.data.layouts import layout_of
from clinprompt.data.layouts.base import Listing, counted
from clinprompt.data.layouts.tree import scan
from clinprompt.data.names import is_known, matching_key
from clinprompt.data.survey import Answers, Finding, folders, tables
from clinprompt.errors import BadParams, ClinpromptError, DataRejected, InputMissing
from clinprompt.files import write_text
from clinprompt.process import short_lived
from clinprompt.schema import Name, Section, check, parse_yaml, to_yaml

CARDS = Path("datasets")


class _Series(StrEnum):
    SLICES = "slices"
    VOLUME = "volume"


_NEXT = """{said}

{card} is written: {classes} classes, {images} images, {patients}, {split}.{leaks}

What is left to do:
  1. Edit {card}: each class's clinical name and phrase (prompts are made of them), the title, modality,
     organ, licence and source.
  2. Add it in params.yaml, as in   datasets: [brain-phantom, {name}]
  3. Run   make run    # the graph (dvc repro), and then what came of it
"""
_LEAKS_LEFT_OUT = """
An image or a patient that is in two of its splits is left out of the lesser one (train before val before test) and
listed; on_leak in the card says so, and can stop the run instead."""
_ON_LEAK = """# A leak is an image, or nearly the same one, or a patient in more than one split. fail: it stops the run.
# drop_from_train: the image in the lesser split is left out (train before val, val before test), and listed.
"""


def survey(root: Path, answers: Answers) -> Finding:
    """What a dataset's folder is taken for.

    Raises:
        InputMissing: it is not there.
        DataRejected: it is no dataset of images with classes.
        BadParams: it could be several things; the message says which option decides.
    """
    if not root.is_dir():
        raise InputMissing(f"{root} is no folder; expected one with class folders, or a table and its images.")
    if answers.table:
        return tables.look(root, answers.table, answers)
    listed = {} if answers.folders else tables.listed_images(root, answers.exclude)
    images = len(scan(root, answers.exclude).images) if listed else 0
    found = [name for name, named in listed.items() if len(named) >= 0.5 * images]
    if not found:
        return _folders(root, answers)
    try:
        as_folders = folders.look(root, answers)
    except ClinpromptError:
        as_folders = None
    if as_folders is None and len(found) == 1:
        more = [name for name, named in listed.items() if named - listed[found[0]]]
        if more:
            raise BadParams(
                f"{root}: {found[0]} lists some of the images, {', '.join(more)} others; join them to one table with a "
                f"column split and say --table, or take the first alone with --table {found[0]}."
            )
        return tables.look(root, found[0], answers)
    choices = [f"a table of images: --table {name}" for name in found]
    if as_folders is not None:
        choices.append(f"folders of classes ({', '.join(as_folders.labels[:4])}): --folders '{{class}}' or the like")
    raise BadParams(f"{root} could be several things; say which. {'; '.join(choices)}.")


def _folders(root: Path, answers: Answers) -> Finding:
    try:
        return folders.look(root, answers)
    except DataRejected as error:
        there = [] if answers.folders else tables.candidates(root)
        if not there:
            raise
        raise DataRejected(f"{error} Where {' or '.join(there)} lists the images, say --table {there[0]}.") from None


def new_card(name: str, root: Path, title: str, modality: str, organ: str, finding: Finding) -> tuple[Card, Listing]:
    """Make up the card of a dataset and list its images with it.

    Raises:
        InputMissing, DataRejected: the images are not as the finding says.
    """
    split = _split(finding.splits)
    values = {
        "name": name,
        "title": title,
        "modality": modality,
        "organ": organ,
        "classes": _classes(finding.labels, modality),
        "licence": "unknown",
        "source": "unknown",
        "how_to_get": f"It was in {root.resolve()} when its card was written.",
        "path": str(root.resolve()),
        "reader": finding.reader,
        "split": split,
    }
    if finding.metadata:
        values["metadata"] = finding.metadata
    # A publisher's splits often share images, and the test split stays whole; in a split of ours a leak is a fault.
    values["on_leak"] = "drop_from_train" if split["rule"] == "given" else "fail"
    card = check(Card, values, f"the card of {root}")
    layout = layout_of(card.reader.kind, f"the card of {root}")
    listing = layout.read(root, card, check(layout.options, card.reader.options, "the command line", "reader"))
    if not listing.records:
        skipped = counted(listing.skipped) or "none"
        raise DataRejected(f"{root} holds no image ({', '.join(SUFFIXES)} are read); other files: {skipped}.")
    return card, replace(listing, records=with_header_facts(listing.records, root, card.metadata.dicom))


app = cli.application()


@app.command(help=__doc__)
def write_card(
    name: Annotated[str, typer.Argument(help="the dataset's name: letters, digits, '_', '.' and '-'")],
    root: Annotated[Path, typer.Argument(help="the folder of the images")],
    title: Annotated[str | None, typer.Option(help="by default the name")] = None,
    modality: Annotated[str, typer.Option(help="as 'MRI' or 'chest X-ray'")] = "medical image",
    organ: Annotated[str, typer.Option(help="as 'brain'")] = "unknown",
    pattern: Annotated[
        str, typer.Option("--folders", help="what the folders mean, as '{split}/{class}/{patient}' or '*/{class}'")
    ] = "",
    patient: Annotated[
        str,
        typer.Option(help="folder, name (the files' names begin with it), none, an expression or a table's column"),
    ] = "",
    exclude: Annotated[list[str] | None, typer.Option(help="a glob of files or folders to leave out")] = None,
    keep_masks: Annotated[bool, typer.Option("--keep-masks", help="what looks like masks are images, too")] = False,
    train: Annotated[list[str] | None, typer.Option(help="a folder of the training split")] = None,
    val: Annotated[list[str] | None, typer.Option(help="a folder of the validation split")] = None,
    test: Annotated[list[str] | None, typer.Option(help="a folder of the test split")] = None,
    table: Annotated[str, typer.Option(help="the CSV or Parquet file in the folder that lists the images")] = "",
    label: Annotated[str, typer.Option(help="the table's column of classes")] = "",
    series: Annotated[
        _Series | None, typer.Option(help="what a folder with one DICOM series holds: pictures, or one volume")
    ] = None,
) -> None:
    """Write the card, say what the folder is taken for and what is left to do.

    Raises:
        BadParams: there is a card of that name, it is not one that a card can have or YAML reads it as something else
            than text; or the folder could be several things.
    """
    _check_name(name)
    path = CARDS / f"{name}.yaml"
    if path.exists():
        raise BadParams(f"{path} exists already; choose another name, or edit it.")
    splits = {split: names for split, names in (("train", train), ("val", val), ("test", test)) if names}
    answers = Answers(
        pattern, patient, tuple(exclude or ()), keep_masks, splits, table, label, series.value if series else ""
    )
    finding = survey(root, answers)
    card, listing = new_card(name, root, title or name, modality, organ, finding)
    write_text(path, _to_yaml(card))
    facts = {
        "said": "\n".join(finding.said),
        "card": path,
        "name": card.name,
        "classes": len(card.classes),
        "images": len(listing.records),
        "patients": _said_of_patients(listing),
        "split": _said_of_split(card, finding),
        "leaks": _LEAKS_LEFT_OUT if card.on_leak == "drop_from_train" else "",
    }
    sys.stdout.write(_NEXT.format(**facts))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, argv, "python -m clinprompt.data.new")


def clinical_name(label: str) -> str:
    """A folder's name or a label as words: "no_tumor" is "no tumor"; hyphens and names with digits stay as they are."""
    words = re.sub(r"[_\s]+", " ", unicodedata.normalize("NFC", label)).strip(" .-")
    return " ".join(word if re.search(r"\d", word) else word.lower() for word in words.split())


class _Named(Section):
    name: Name


def _check_name(name: str) -> None:
    check(_Named, {"name": name}, "the command line")
    try:
        read = parse_yaml(name)
    except (yaml.YAMLError, ValueError):  # a date such as 2024-13-45
        read = None
    if not isinstance(read, str):
        raise BadParams(
            f"name: YAML reads {name!r} as a number, a date or the like; choose one that is text, as 'set-{name}'."
        )


def _classes(labels: Sequence[str], modality: str) -> list[dict[str, Any]]:
    classes: dict[str, dict[str, Any]] = {}
    taken = {matching_key(label) for label in labels}
    for label in labels:
        class_id = re.sub(r"[^A-Za-z0-9_.-]+", "_", _without_accents(label)).strip("_.-") or "class"
        name = clinical_name(label) or class_id
        if matching_key(label) in classes:
            continue
        while matching_key(class_id) != matching_key(label) and matching_key(class_id) in taken:
            class_id += "_2"
        taken.add(matching_key(class_id))
        aliases = [label] if matching_key(label) != matching_key(class_id) else []
        phrase = f"{modality} showing {name}"
        classes[matching_key(label)] = {"id": class_id, "name": name, "phrase": phrase, "aliases": aliases}
    return list(classes.values())


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _split(splits: set[str]) -> dict[str, Any]:
    if splits == {"train", "val", "test"}:
        return {"rule": "given"}
    if splits == {"train", "test"}:
        return {"rule": "given", "val_from_train": 0.15}
    return {"rule": "stratified", "fractions": {"train": 0.7, "val": 0.15, "test": 0.15}}


def _said_of_patients(listing: Listing) -> str:
    known = [patient for r in listing.records if is_known(patient := r.facts.get("patient", ""))]
    unknown = len(listing.records) - len(known)
    studies = {study for r in listing.records if is_known(study := r.facts.get("study", ""))}
    if not known:
        return f"{len(studies)} studies and no patients known" if studies else "no patients known"
    return f"{len(set(known))} patients{f' ({unknown} images of an unknown one)' if unknown else ''}"


def _said_of_split(card: Card, finding: Finding) -> str:
    told = " and ".join(sorted(finding.splits))
    if card.split.rule == "stratified":
        return f"a stratified split, since it tells {told} alone" if told else "a stratified split"
    made = ", and val made from train" if card.split.val_from_train is not None else ""
    return f"the split that it tells{made}"


def _to_yaml(card: Card) -> str:
    values = card.model_dump(exclude_unset=True)
    text = to_yaml(values, sort_keys=False, allow_unicode=True, width=110)
    return text.replace("\non_leak: ", f"\n{_ON_LEAK}on_leak: ")


if __name__ == "__main__":
    short_lived()
    sys.exit(main())
