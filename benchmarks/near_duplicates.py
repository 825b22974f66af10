"""How many altered copies of real images are found, how many pairs a set holds as it is, and how long that takes.

    python -m benchmarks.near_duplicates FOLDER_OR_NPZ [--sample 200]

A folder is read with all PNG and JPEG images below it, an `.npz` file with all its `*_images`. `before` is the method
that this one replaced: hashes at most 8 bits apart whose thumbnails of 32 pixels correlate by 0.98.
"""

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from clinprompt.data.near_duplicates.fingerprint import collect, is_small, thumbnail
from clinprompt.data.near_duplicates.pairs import hash_pairs, near_pairs

BITS, CORRELATION = 8, 0.98


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--sample", type=int, default=200, help="images that are altered")
    options = parser.parse_args()
    images = _load(options.source)
    originals = [_row(f"a{n:06d}", image) for n, image in enumerate(images)]
    old, old_seconds = _timed(_before, originals)
    new, new_seconds = _timed(_after, originals)
    print(json.dumps({"images": len(images), "pairs before": len(old), "after": len(new), "both": len(old & new)}))
    print(json.dumps({"before": old_seconds, "after": new_seconds, "ratio": round(new_seconds / old_seconds, 1)}))
    chosen = np.random.default_rng(0).choice(len(images), min(options.sample, len(images)), replace=False)
    for how, alter in ALTERED.items():
        copies = [_row(f"b{n:06d}", alter(images[n])) for n in chosen]
        true = {(f"a{n:06d}", f"b{n:06d}") for n in chosen}
        shares = [len(find(originals + copies) & true) / len(true) for find in (_before, _after)]
        print(json.dumps({"altered": how, "before": round(shares[0], 3), "after": round(shares[1], 3)}), flush=True)


def _load(source: Path) -> list[Image.Image]:
    """The distinct images, grey."""
    if source.suffix == ".npz":
        arrays = np.load(source)
        stacks = [arrays[name] for name in arrays.files if name.endswith("_images")]
        return [Image.fromarray(pixels).convert("L") for pixels in np.unique(np.concatenate(stacks), axis=0)]
    files = {hashlib.sha256(f.read_bytes()).hexdigest(): f for f in source.rglob("*") if f.suffix in (".png", ".jpg")}
    return [Image.open(file).convert("L") for _, file in sorted(files.items())]


def _row(name: str, image: Image.Image) -> Any:
    return name, int(str(imagehash.phash(image)), 16), thumbnail(image), is_small(*image.size)


def _after(rows: list[Any]) -> set[tuple[str, str]]:
    pairs = near_pairs(collect(rows), BITS, CORRELATION)
    return set(zip(pairs["id_a"], pairs["id_b"], strict=True))


def _before(rows: list[Any]) -> set[tuple[str, str]]:
    prints = collect(rows)
    flat = prints.thumbnails.reshape(len(rows), 32, 2, 32, 2).mean(axis=(2, 4)).reshape(len(rows), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    found = set()
    for a, b in hash_pairs(prints.hashes, BITS):
        same = np.einsum("nk,nk->n", flat[a], flat[b]) >= CORRELATION
        found |= {(prints.ids[i], prints.ids[j]) for i, j in zip(a[same], b[same], strict=True)}
    return found


def _timed(find: Callable[[list[Any]], set[tuple[str, str]]], rows: list[Any]) -> tuple[set[tuple[str, str]], float]:
    start = time.process_time()
    return find(rows), round(time.process_time() - start, 2)


def _jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=50)
    return Image.open(stream).convert("L")


def _crop(image: Image.Image, share: float) -> Image.Image:
    left, top = round(image.width * share), round(image.height * share)
    return image.crop((left, top, image.width - left, image.height - top))


def _noise(image: Image.Image) -> Image.Image:
    values = np.asarray(image) + np.random.default_rng(0).normal(0, 6, image.size[::-1])
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _border(image: Image.Image, grey: int) -> Image.Image:
    return ImageOps.expand(image, max(1, round(8 * image.width / 224)), grey)


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "JPEG, quality 50": _jpeg,
    "brightness 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast 0.7": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "noise 6": _noise,
    "rotated by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "rotated by 5 degrees": lambda image: image.rotate(5, Image.Resampling.BICUBIC),
    "rotated by 10 degrees": lambda image: image.rotate(10, Image.Resampling.BICUBIC),
    "cropped by 2 % on each side": lambda image: _crop(image, 0.02),
    "cropped by 5 % on each side": lambda image: _crop(image, 0.05),
    "cropped by 10 % on each side": lambda image: _crop(image, 0.10),
    "cropped by 5 % at right and bottom": lambda image: image.crop((0, 0, *(round(s * 0.95) for s in image.size))),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by a quarter": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "black border of 8 pixels of 224": lambda image: _border(image, 0),
    "white border of 8 pixels of 224": lambda image: _border(image, 255),
    "inverted": ImageOps.invert,
}

if __name__ == "__main__":
    main()
