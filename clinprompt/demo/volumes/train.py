"""`python -m clinprompt.demo.volumes.train`: trains `demo-m3d`, the small M3D-CLIP that the package carries.

Contrastive training (symmetric InfoNCE, Radford et al. 2021) on drawn brains and captions of their sizes and of the
scanner. It sees no diagnosis, and shares no seed with `brain-phantom-3d`.
"""

import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
import typer
from torch import Tensor, nn

from clinprompt import cli
from clinprompt.backbones.m3d import M3DClip
from clinprompt.demo.towers import learning_rate, make_optimizer, write_record
from clinprompt.demo.volumes.anatomy import STRUCTURES
from clinprompt.demo.volumes.captions import PARTS, Scene, caption, draw_scene
from clinprompt.demo.volumes.model_card import model_card
from clinprompt.demo.volumes.towers import (
    DEMO,
    PREPROCESSING,
    SIZES,
    TOKENS,
    WEIGHTS,
    initial_model,
    make_tokenizer,
    save,
    write_files,
)
from clinprompt.files import atomic, sha256_file, write_text
from clinprompt.progress import progress

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[2] / "backbones" / "weights" / "demo-m3d"
_FEATURE_SCALE = 8.0  # unit features have entries of about 0.1
_SHARE = 20.0  # a structure has about a twentieth of a patch that it lies in


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on, beside the code."""

    scenes: int = 1500
    held_out: int = 200
    steps: int = 520
    batch_size: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 50
    seed: int = 2027


class Helper(nn.Module):
    """The training loss, with heads that are thrown away: sizes and scanner, read from both towers' features.

    The logit scale is trained as its logarithm, as CLIP's is; the saved model has the number itself, as M3D-CLIP has.
    """

    def __init__(self, model: M3DClip) -> None:
        super().__init__()
        self._model = [model]  # in a list: its parameters are not this module's
        width = model.mm_vision_proj.out_features
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.places = nn.Linear(width, len(STRUCTURES))
        self.sizes, self.scanner, self.told = (nn.Linear(width, n) for n in (len(PARTS), 3, len(PARTS)))

    def forward(self, voxels: Tensor, places: Tensor, ids: Tensor, facts: Tensor, told: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            voxels: [B, 1, D, H, W].
            places: the share of each patch that each structure has [B, N, 5].
            ids: tokens of the captions [B, T].
            facts: sizes of the parts, then of the scanner [B, 9].
            told: the parts that a caption tells of [B, 6].
        """
        model = self._model[0]
        tokens = model.vision_encoder(voxels)
        image = F.normalize(model.mm_vision_proj(tokens[:, 0]).float(), dim=-1)
        text = F.normalize(model.encode_text(ids).float(), dim=-1)
        logits = self.log_scale.exp() * image @ text.T
        target = torch.arange(len(logits))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        sizes, scanner = facts[:, : len(PARTS)], facts[:, len(PARTS) :]
        seen = F.mse_loss(self.sizes(image * _FEATURE_SCALE).float(), sizes)
        by_scanner = F.mse_loss(self.scanner(image * _FEATURE_SCALE).float(), scanner)
        read = F.mse_loss(self.told(text * _FEATURE_SCALE).float()[told], sizes[told])
        where = F.mse_loss(self.places(tokens[:, 1:]).float(), _SHARE * places)
        return contrast + 3 * seen + 0.3 * by_scanner + read + 3 * where


def train(folder: Path, recipe: Recipe, workers: int) -> dict[str, float]:
    """Train and write everything to `folder`; returns the retrieval accuracies on held-out pairs."""
    scenes = draw_scenes(recipe, workers)
    write_files(folder, DEMO)
    model = initial_model(DEMO, recipe.seed)
    tokenizer = make_tokenizer()
    held_out, seen = scenes[: recipe.held_out], scenes[recipe.held_out :]
    places = torch.from_numpy(np.stack([scene.places for scene in seen]))
    voxels, facts = voxels_of(seen), torch.from_numpy(np.stack([_facts(scene) for scene in seen]))
    helper = Helper(model)
    optimizer = make_optimizer(nn.ModuleList([model, helper]), recipe)
    rng = np.random.default_rng([recipe.seed, 32])
    for step in progress(range(recipe.steps), "training demo-m3d", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        rows = rng.choice(len(seen), min(recipe.batch_size, len(seen)), replace=False)
        texts, told = zip(*(caption(seen[row], rng) for row in rows), strict=True)
        with torch.autocast("cpu", torch.bfloat16):
            image = augment(voxels[rows], places[rows], rng)
            loss = helper(*image, ids_of(tokenizer, texts), facts[rows], torch.from_numpy(np.stack(told)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            helper.log_scale.clamp_(0, np.log(50))
        if step % 50 == 0:
            log.info("step %d, loss %.3f", step, loss.item())
    with torch.no_grad():
        model.logit_scale.copy_(helper.log_scale.exp())
    save(model, folder)
    return measure(model.eval(), helper, tokenizer, held_out, recipe.seed)


@torch.no_grad()
def measure(model: M3DClip, helper: Helper, tokenizer: Any, scenes: Sequence[Scene], seed: int) -> dict[str, float]:
    """Of held-out pairs: retrieval among 100, and the correlation of each part's size with what its head reads."""
    rng = np.random.default_rng([seed, 33])
    hits, chunks, read = {1: 0, 5: 0}, range(0, len(scenes), 100), []
    for start in chunks:
        chunk = scenes[start : start + 100]
        image = F.normalize(model.encode_image(_normalise(voxels_of(chunk).float())), dim=-1)
        text = F.normalize(model.encode_text(ids_of(tokenizer, [caption(s, rng)[0] for s in chunk])), dim=-1)
        read.append(helper.sizes(image * _FEATURE_SCALE).numpy())
        ranks = (image @ text.T).argsort(dim=-1, descending=True)
        for k in hits:
            hits[k] += int((ranks[:, :k] == torch.arange(len(chunk))[:, None]).any(-1).sum())
    found = {f"retrieval_at_{k}_of_100": round(count / len(scenes), 4) for k, count in hits.items()}
    sizes, heads = np.stack([scene.sizes for scene in scenes]), np.concatenate(read)
    for number, part in enumerate(PARTS):
        found[f"r_{part}"] = round(float(np.corrcoef(sizes[:, number], heads[:, number])[0, 1]), 3)
    return found


def draw_scenes(recipe: Recipe, workers: int) -> list[Scene]:
    """All scenes, drawn in worker processes; the result does not depend on their number."""
    total = recipe.scenes + recipe.held_out
    draw = partial(draw_scene, recipe.seed, preprocessing=PREPROCESSING, patch=SIZES.patch[0])
    with ProcessPoolExecutor(workers) as pool:
        return list(progress(pool.map(draw, range(total), chunksize=8), "drawing", total, "volume"))


def voxels_of(scenes: Sequence[Scene]) -> Tensor:
    """uint8 [N, 1, D, H, W]."""
    return torch.from_numpy(np.stack([scene.voxels for scene in scenes]))[:, None]


def ids_of(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Token ids [N, T], padded to the longest, at most the tower's context."""
    encoded = [encoding.ids[:TOKENS] for encoding in tokenizer.encode_batch(list(texts))]
    ids = torch.zeros(len(texts), max(map(len, encoded)), dtype=torch.int64)
    for row, found in enumerate(encoded):
        ids[row, : len(found)] = torch.tensor(found)
    return ids


def augment(voxels: Tensor, places: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Small shifts, and left for right: normalised [B, 1, D, H, W] of uint8, and the patches' shares [B, N, 5]."""
    shift = tuple(int(s) for s in rng.integers(-1, 2, 3))
    moved = torch.roll(voxels.float(), shift, dims=(2, 3, 4))
    mirrored = torch.from_numpy(rng.random(len(voxels)) < 0.5)
    flipped = places.unflatten(1, SIZES.grid).flip(3).flatten(1, 3)
    voxels = torch.where(mirrored[:, None, None, None, None], moved.flip(4), moved)
    return _normalise(voxels), torch.where(mirrored[:, None, None], flipped, places)


def _normalise(voxels: Tensor) -> Tensor:
    """Each volume [B, 1, D, H, W] to mean 0 and deviation 1, as the preprocessing does."""
    flat = voxels.flatten(1)
    mean, deviation = flat.mean(dim=1), flat.std(dim=1, correction=0)
    return (voxels - mean[:, None, None, None, None]) / deviation[:, None, None, None, None]


def _facts(scene: Scene) -> np.ndarray:
    seen = scene.scanner
    scanner = [(seen.gamma - 1.25) / 0.26, (seen.noise - 0.045) / 0.015, (seen.thickness - 1.3) / 0.25]
    return np.concatenate([scene.sizes, scanner]).astype(np.float32)


def finish(folder: Path, recipe: Recipe, results: dict[str, float]) -> None:
    """Write the recipe and the model card beside the weights."""
    record = {"recipe": asdict(recipe), "results": results, "sha256": sha256_file(folder / WEIGHTS)}
    write_record(folder, record, ("transformers", transformers.__version__))
    write_text(folder / "README.md", model_card(asdict(recipe), results, folder / WEIGHTS))


app = cli.application()


@app.command(help=__doc__)
def write_model(
    out: Annotated[Path, typer.Option(help="where the folder goes", show_default="the package")] = FOLDER,
    workers: Annotated[int, typer.Option(help="processes that draw")] = 2,
    scenes: int = Recipe.scenes,
    held_out: int = Recipe.held_out,
    steps: int = Recipe.steps,
    batch_size: int = Recipe.batch_size,
    seed: int = Recipe.seed,
) -> None:
    """Train and write a folder of M3D-CLIP; the old one is replaced when all is done."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    recipe = Recipe(scenes=scenes, held_out=held_out, steps=steps, batch_size=batch_size, seed=seed)
    with atomic(out) as partial_folder:
        finish(partial_folder, recipe, train(partial_folder, recipe, workers))
    sys.stdout.write(f"{out}: SHA-256 of {WEIGHTS}: {sha256_file(out / WEIGHTS)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, arguments, "python -m clinprompt.demo.volumes.train")


if __name__ == "__main__":
    sys.exit(main())
