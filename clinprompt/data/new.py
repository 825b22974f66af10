"""`python -m clinprompt.data.new NAME ROOT`: write the dataset card of a folder of images."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from clinprompt.data.card import Card
from clinprompt.data.layouts import folder as folder_reader
from clinprompt.errors import BadParams, ClinpromptError, DataRejected, InputMissing
from clinprompt.files import write_text
from clinprompt.schema import check

CARDS = Path("datasets")

_NEXT = """{card} is written: {classes} classes, {images} images, {split}.

What is left to do:
  1. Edit {card}: each class's clinical name and phrase (prompts are made of them), the title, modality,
     organ, licence and source.
  2. Add it in params.yaml, as in   datasets: [brain-phantom, {name}]
  3. Run   dvc repro
"""


def new_card(name: str, root: Path, title: str, modality: str, organ: str) -> tuple[Card, int]:
    """Look at a folder of images and make up its card, and count its images.

    Raises:
        BadParams: the name is not one that a card can have.
        InputMissing, DataRejected: the folder is not there, or is not laid out as class folders with images.
    """
    if not root.is_dir():
        raise InputMissing(f"{root} is no folder; expected one with class folders, or with split and class folders.")
    names = folder_reader.subfolders(root)
    splits = folder_reader.split_folders(names)
    folders = [f for split in splits for f in folder_reader.subfolders(root / split)] if splits else names
    classes = _classes(folders, modality)
    if len(classes) < 2:
        raise DataRejected(f"{root} holds {len(classes)} class folders, expected at least two, one for each class.")
    values = {
        "name": name,
        "title": title,
        "modality": modality,
        "organ": organ,
        "classes": classes,
        "licence": "unknown",
        "source": "unknown",
        "how_to_get": f"It was in {root.resolve()} when its card was written.",
        "path": str(root.resolve()),
        "reader": {"kind": "folder"},
        "split": _split(set(splits.values())),
    }
    card = check(Card, values, f"the card of {root}")
    listing = folder_reader.read(root, card, folder_reader.FolderOptions())
    if not listing.records:
        raise DataRejected(f"{root} holds no PNG, JPEG or TIFF image.")
    return card, len(listing.records)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m clinprompt.data.new", description=__doc__)
    parser.add_argument("name", help="the dataset's name: letters, digits, '_', '.' and '-'")
    parser.add_argument("root", type=Path, help="<class>/* or <split>/<class>/*; images are PNG, JPEG or TIFF")
    parser.add_argument("--title", help="by default the name")
    parser.add_argument("--modality", default="medical image", help="as 'MRI' or 'chest X-ray'")
    parser.add_argument("--organ", default="unknown", help="as 'brain'")
    args = parser.parse_args(argv)
    path = CARDS / f"{args.name}.yaml"
    try:
        if path.exists():
            raise BadParams(f"{path} exists already; choose another name, or edit it.")
        card, images = new_card(args.name, args.root, args.title or args.name, args.modality, args.organ)
        write_text(path, _to_yaml(card))
    except ClinpromptError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    split = "the split of its folders" if card.split.rule == "given" else "a stratified split"
    sys.stdout.write(_NEXT.format(card=path, name=card.name, classes=len(card.classes), images=images, split=split))
    return 0


def _classes(folders: list[str], modality: str) -> list[dict[str, Any]]:
    classes: dict[str, dict[str, Any]] = {}
    taken = {folder.casefold() for folder in folders}
    for folder in folders:
        label = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder).strip("_.-") or "class"
        name = re.sub(r"[_.\s-]+", " ", folder).strip().lower() or label
        if folder.casefold() in classes:
            continue
        while label.casefold() != folder.casefold() and label.casefold() in taken:
            label += "_2"
        taken.add(label.casefold())
        aliases = [folder] if folder.casefold() != label.casefold() else []
        classes[folder.casefold()] = {
            "id": label,
            "name": name,
            "phrase": f"{modality} showing {name}",
            "aliases": aliases,
        }
    return list(classes.values())


def _split(splits: set[str]) -> dict[str, Any]:
    if splits == {"train", "val", "test"}:
        return {"rule": "given"}
    if splits == {"train", "test"}:
        return {"rule": "given", "val_from_train": 0.15}
    return {"rule": "stratified", "fractions": {"train": 0.7, "val": 0.15, "test": 0.15}}


def _to_yaml(card: Card) -> str:
    values = card.model_dump(exclude_unset=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    sys.exit(main())
