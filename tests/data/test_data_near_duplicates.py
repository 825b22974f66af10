"""Near-duplicates on drawn phantoms: altered copies are found, look-alikes are not, and no split of ours parts them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from clinprompt.data.groups import group_names
from clinprompt.data.ingest import NearLimits, ingest
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.data.near_duplicates.fingerprint import collect, is_small, thumbnail
from clinprompt.data.near_duplicates.pairs import near_pairs
from clinprompt.demo.phantom import SITES, Patient, draw

LIMITS = NearLimits(bits=8, correlation=0.98)
COUNT = 40


@cache
def phantoms() -> list[Image.Image]:
    """One slice of each of some patients."""
    patients = [Patient(n, "glioma_tumor", "train", list(SITES)[n % 3], "F", 50, n) for n in range(COUNT)]
    pixels = [np.clip(draw(patient, 0, 128, 1.0), 0, 1) * 255 for patient in patients]
    return [Image.fromarray(values.astype(np.uint8)) for values in pixels]


def pairs_of(images: dict[str, Image.Image]) -> pd.DataFrame:
    hashes = {name: 0 if name < "b" else 2**64 - 1 for name in images}  # of no help
    rows = [(name, hashes[name], thumbnail(image), is_small(*image.size)) for name, image in sorted(images.items())]
    return near_pairs(collect(rows), LIMITS.bits, LIMITS.correlation)


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, top = round(width * share), round(height * share)
    return image.crop((left, top, width - left, height - top))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: image.resize((64, 64), Image.Resampling.BICUBIC),
    "rotated by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "rotated by 5 degrees": lambda image: image.rotate(5, Image.Resampling.BICUBIC),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
    "cropped by 5 %": lambda image: cropped(image, 0.05),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by a quarter": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "black border": lambda image: ImageOps.expand(image, 4, 0),
    "white border": lambda image: ImageOps.expand(image, 4, 255),
    "inverted": ImageOps.invert,
}


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_is_found(how: str) -> None:
    originals = {f"a{n:02d}": image for n, image in enumerate(phantoms())}
    copies = {f"b{n:02d}": ALTERED[how](image) for n, image in enumerate(phantoms())}
    found = set(pairs_of(originals | copies)[["id_a", "id_b"]].itertuples(index=False, name=None))
    true = {(f"a{n:02d}", f"b{n:02d}") for n in range(COUNT)}
    assert len(found & true) >= 0.95 * COUNT
    assert found <= true


def test_pictures_of_the_same_framing_are_no_pairs_even_when_hash_and_greys_agree() -> None:
    images = {f"a{n:02d}": image for n, image in enumerate(phantoms())}  # all have the same hash here
    assert pairs_of(images).empty


def test_groups_join_patients_bytes_and_pictures() -> None:
    frame = pd.DataFrame({"id": list("uvvwx"), "patient": ["p", "p", None, None, None]})
    near = pd.DataFrame({"id_a": ["v", "elsewhere"], "id_b": ["elsewhere", "w"]})
    groups = group_names(frame, near)
    assert groups.nunique() == 2
    assert groups[:4].nunique() == 1
    assert groups.iloc[::-1].tolist() == group_names(frame.iloc[::-1], near.iloc[::-1]).tolist()


@pytest.mark.parametrize("rule", ["{rule: stratified}", "{rule: given, val_from_train: 0.3}"])
def test_a_split_made_by_rule_parts_no_near_duplicates(tmp_path: Path, rule: str) -> None:
    inner = "" if "stratified" in rule else "train/"
    for n, image in enumerate(phantoms()[:24]):
        folder = tmp_path / "data" / inner / "xy"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{n}.png")
        image.rotate(3, Image.Resampling.BICUBIC).save(folder / f"{n}-turned.png")
    if inner:
        (tmp_path / "data/test/x").mkdir(parents=True)
        Image.effect_noise((64, 64), 50).save(tmp_path / "data/test/x/t.png")
    (tmp_path / "demo.yaml").write_text(
        "{name: demo, title: t, modality: MRI, organ: brain, licence: l, source: s, how_to_get: h, "
        "reader: {kind: folder}, classes: [{id: x, name: x, phrase: an x}, {id: y, name: y, phrase: a y}], split: "
        + rule
        + "}"
    )
    card = load_card(tmp_path / "demo.yaml")
    ingest(card, tmp_path / "data", tmp_path / "m.parquet", tmp_path / "images", LIMITS)
    rows = read_manifest(tmp_path / "m.parquet")
    pictures = rows["path"].str.extract(r"(\d+)(?:-turned)?[.]png$")[0]
    assert (rows["split"] == "val").any()
    assert (rows.groupby(pictures)["split"].nunique() == 1).all()
