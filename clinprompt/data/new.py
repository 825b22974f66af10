"""`python -m clinprompt.data.new NAME ROOT`: write the dataset card of a folder of images."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clinprompt import cli
from clinprompt.data.card import Card
from clinprompt.data.formats import SUFFIXES
from clinprompt.data.layouts import folder as folder_reader
from clinprompt.errors import BadParams, DataRejected, InputMissing
from clinprompt.files import write_text
from clinprompt.schema import check, to_yaml

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
        raise DataRejected(f"{root} holds no image ({', '.join(SUFFIXES)} are read).")
    return card, len(listing.records)


app = cli.application()


@app.command(help=__doc__)
def write_card(
    name: Annotated[str, typer.Argument(help="the dataset's name: letters, digits, '_', '.' and '-'")],
    root: Annotated[Path, typer.Argument(help="a folder with <class>/* or <split>/<class>/* of images")],
    title: Annotated[str | None, typer.Option(help="by default the name")] = None,
    modality: Annotated[str, typer.Option(help="as 'MRI' or 'chest X-ray'")] = "medical image",
    organ: Annotated[str, typer.Option(help="as 'brain'")] = "unknown",
) -> None:
    """Write the card and say what is left to do.

    Raises:
        BadParams: there is a card of that name.
    """
    path = CARDS / f"{name}.yaml"
    if path.exists():
        raise BadParams(f"{path} exists already; choose another name, or edit it.")
    card, images = new_card(name, root, title or name, modality, organ)
    write_text(path, _to_yaml(card))
    split = "the split of its folders" if card.split.rule == "given" else "a stratified split"
    sys.stdout.write(_NEXT.format(card=path, name=card.name, classes=len(card.classes), images=images, split=split))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, argv, "python -m clinprompt.data.new")


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
    return to_yaml(values, sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    sys.exit(main())
