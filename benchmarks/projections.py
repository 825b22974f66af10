"""The shapes, losses and sides among which the projections of `open-towers` were chosen, on phantoms alone.

    python -m benchmarks.projections --wheels FOLDER --cache FOLDER

Each variant is trained with three seeds on the pairs of `python -m clinprompt.demo.projections`, and judged on drawn
scenes that it has not seen: an image's own caption among 100, and on phantoms of brains, by patients, balanced accuracy
of zero-shot by the classes' names and of CoOp with 16 images per class. Prints one JSON object per variant: the means
and the standard deviations over the seeds. No real image is looked at.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from clinprompt.backbones.load import Backbone
from clinprompt.backbones.open_towers import SIDE
from clinprompt.demo.pairs import bare_towers, encode_images, encoded_pairs
from clinprompt.demo.phantom import CLASSES, SITES, Patient, draw
from clinprompt.demo.projections import Joint, Recipe, Variant, retrieval, train
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples
from clinprompt.training.fit import fit
from clinprompt.training.loop import Run

NAMES = ("glioma", "meningioma", "no tumor", "pituitary tumor")
SHOTS, TESTED = 16, 30  # patients of each class, an image each
SEEDS = (1, 2, 3)
_PHANTOM_SEED = 4711


class Joined(nn.Module):
    """What stands behind the text tower: a joint model's projection of its features."""

    def __init__(self, joint: Joint) -> None:
        super().__init__()
        self.joint = joint

    def forward(self, rows: Tensor) -> Tensor:
        return self.joint.text(rows / self.joint.scales[1])


@dataclass(frozen=True)
class Brains:
    """Features of phantoms of brains and their classes: training and test."""

    train: Examples
    test: Examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="a folder with the pinned wheels")
    parser.add_argument("--cache", type=Path, required=True, help="a folder that keeps the features")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    recipe = Recipe()
    total = recipe.scenes + recipe.held_out
    pairs = encoded_pairs(total, recipe.captions, recipe.seed, options.wheels, options.cache / "pairs.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        backbone = bare_towers(Path(folder, "towers"), options.wheels)
    brains = encoded_brains(backbone, options.cache / "brains.safetensors")
    for shape, loss, sides in product(("linear", "mlp"), ("infonce", "sigmoid"), ("both", "image")):
        variant = Variant(shape, loss, sides)  # type: ignore[arg-type]
        rows = []
        for seed in SEEDS:
            joint = train(pairs.part(recipe.held_out, None), replace(recipe, seed=recipe.seed + seed), variant)
            rows.append(judged(joint, backbone, brains, seed) | retrieval(joint, pairs.part(0, recipe.held_out)))
        scores = {key: [round(mean(r[key] for r in rows), 3), round(stdev(r[key] for r in rows), 3)] for key in rows[0]}
        print(json.dumps(asdict(variant) | scores), flush=True)


def judged(joint: Joint, backbone: Backbone, brains: Brains, seed: int) -> dict[str, float]:
    """Balanced accuracies on phantoms of brains, of zero-shot and of CoOp."""
    text = backbone.model.text
    text.proj = Joined(joint)
    joined = replace(
        backbone, embed_dim=joint.images(brains.test.inputs[:1]).shape[1], logit_scale=float(joint.scale())
    )
    task, scores = Task(joined, NAMES, seed), {}
    data = [replace(part, inputs=joint.images(part.inputs)) for part in (brains.train, brains.test)]
    for name in ("zero_shot", "coop"):
        model = method(name)(task, check_config(name, {}))
        fit(model, data[0], data[0], Run(seed))
        with torch.no_grad():
            predicted = model.eval()(data[1].batch(slice(None))).argmax(1)
        scores[name] = float(balanced_accuracy_score(data[1].labels, predicted))
    return scores


def encoded_brains(backbone: Backbone, cache: Path) -> Brains:
    """Phantoms of patients that no card draws."""
    rng = np.random.default_rng(_PHANTOM_SEED)
    everyone = [
        Patient(n, label, "train", str(rng.choice(list(SITES))), "F", 50, int(rng.integers(2**32)))
        for label in CLASSES
        for n in range(SHOTS + TESTED)
    ]
    if not cache.is_file():
        features = encode_images(backbone, _drawn(everyone), len(everyone), "brains")
        save_file({"features": features}, cache)
    features = load_file(cache)["features"].unflatten(0, (len(CLASSES), SHOTS + TESTED))
    labels = torch.arange(len(CLASSES))[:, None].expand(-1, SHOTS + TESTED)
    parts = [
        Examples(features[:, rows].flatten(0, 1), labels[:, rows].flatten())
        for rows in (slice(0, SHOTS), slice(SHOTS, None))
    ]
    return Brains(*parts)


def _drawn(patients: list[Patient]) -> Iterator[np.ndarray]:
    for patient in patients:
        yield (np.clip(draw(patient, 0, SIDE, 1.0), 0, 1) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    main()
