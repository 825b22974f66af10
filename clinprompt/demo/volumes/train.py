"""`python -m clinprompt.demo.volumes.train`: trains `demo-m3d`, the small M3D-CLIP that the package carries.

On drawn brains, first to see where structures are larger or smaller than in others, then also by contrast with captions
of sizes and of the scanner (symmetric InfoNCE, Radford et al. 2021). It sees no diagnosis, and shares no seed with
`brain-phantom-3d`.
"""

import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
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
from clinprompt.demo.towers import learning_rate, make_optimizer, model_to_write, write_record
from clinprompt.demo.volumes.captions import PARTS, Scene, caption, draw_scene
from clinprompt.demo.volumes.model_card import model_card
from clinprompt.demo.volumes.objective import FEATURE_SCALE, Objective, Places, start_at_differences
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
_FOR_COMPONENTS = 1000  # scenes that the tower's first weights are computed of


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Attributes:
        patches: how many a batch sees beside those in which structures vary; None: all, and their captions.
    """

    steps: int
    batch_size: int
    learning_rate: float
    patches: int | None = None
    weight_decay: float = 0.05
    warmup: int = 50


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on, beside the code: small batches learn to see, larger ones pair."""

    scenes: int = 4000
    held_out: int = 200
    seeing: Phase = Phase(steps=2000, batch_size=16, learning_rate=1e-3, patches=20)
    pairing: Phase = Phase(steps=300, batch_size=48, learning_rate=5e-4)
    seed: int = 2027


def train(folder: Path, recipe: Recipe, workers: int) -> dict[str, float]:
    """Train and write everything to `folder`; returns the results on held-out pairs."""
    scenes = draw_scenes(recipe, workers)
    write_files(folder, DEMO)
    model = initial_model(DEMO, recipe.seed)
    held_out, seen = scenes[: recipe.held_out], scenes[recipe.held_out :]
    first = voxels_of(seen[:_FOR_COMPONENTS]).float()
    start_at_differences(model.vision_encoder, _normalise(first))
    objective = Objective(model)
    rng = np.random.default_rng([recipe.seed, 32])
    for name, phase in (("seeing", recipe.seeing), ("pairing", recipe.pairing)):
        descend(model, objective, phase, seen, rng, f"training demo-m3d: {name}")
    with torch.no_grad():
        model.logit_scale.copy_(objective.log_scale.exp())
    save(model, folder)
    return measure(model.eval(), objective, held_out, recipe.seed)


def descend(
    model: M3DClip, objective: Objective, phase: Phase, scenes: Sequence[Scene], rng: np.random.Generator, title: str
) -> None:
    """Train for a phase."""
    places, tokenizer = Places.of(scenes), make_tokenizer()
    voxels, facts = voxels_of(scenes), torch.from_numpy(np.stack([_facts(scene) for scene in scenes]))
    optimizer = make_optimizer(nn.ModuleList([model, objective]), phase)
    for step in progress(range(phase.steps), title, unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, phase)
        rows = rng.choice(len(scenes), min(phase.batch_size, len(scenes)), replace=False)
        seen, shares = mirrored(_normalise(voxels[rows].float()), places.shares[rows], rng)
        patches = None if phase.patches is None else places.some(phase.patches, rng)
        with torch.autocast("cpu", torch.bfloat16):
            loss, features = objective.seeing(seen, places.deviations(shares), facts[rows], patches)
            if patches is None:
                texts, told = zip(*(caption(scenes[row], rng) for row in rows), strict=True)
                sizes = facts[rows, : len(PARTS)]
                loss = loss + objective.pairing(
                    features, ids_of(tokenizer, texts), sizes, torch.from_numpy(np.stack(told))
                )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            objective.log_scale.clamp_(0, np.log(50))
        if step % 50 == 0:
            log.info("step %d, loss %.3f", step, loss.item())


@torch.no_grad()
def measure(model: M3DClip, objective: Objective, scenes: Sequence[Scene], seed: int) -> dict[str, float]:
    """Of held-out pairs: retrieval among 100, and the correlation of each part's size with what its head reads."""
    rng, tokenizer = np.random.default_rng([seed, 33]), make_tokenizer()
    hits, chunks, read = {1: 0, 5: 0}, range(0, len(scenes), 100), []
    for start in chunks:
        chunk = scenes[start : start + 100]
        image = F.normalize(model.encode_image(_normalise(voxels_of(chunk).float())), dim=-1)
        text = F.normalize(model.encode_text(ids_of(tokenizer, [caption(s, rng)[0] for s in chunk])), dim=-1)
        read.append(objective.sizes(image * FEATURE_SCALE).numpy())
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


def mirrored(voxels: Tensor, shares: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Left for right in half of the volumes [B, 1, D, H, W], and in the patches' shares [B, N, 5]."""
    turned = torch.from_numpy(rng.random(len(voxels)) < 0.5)
    flipped = shares.unflatten(1, SIZES.grid).flip(3).flatten(1, 3)
    voxels = torch.where(turned[:, None, None, None, None], voxels.flip(4), voxels)
    return voxels, torch.where(turned[:, None, None], flipped, shares)


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
    out: Annotated[
        Path, typer.Option(help="where the folder goes", show_default="the package", callback=model_to_write)
    ] = FOLDER,
    workers: Annotated[int, typer.Option(help="processes that draw")] = 2,
    scenes: int = Recipe.scenes,
    held_out: int = Recipe.held_out,
    seeing_steps: int = Recipe.seeing.steps,
    pairing_steps: int = Recipe.pairing.steps,
    seed: int = Recipe.seed,
) -> None:
    """Train and write a folder of M3D-CLIP; the old one is replaced when all is done."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    seeing, pairing = replace(Recipe.seeing, steps=seeing_steps), replace(Recipe.pairing, steps=pairing_steps)
    recipe = Recipe(scenes, held_out, seeing, pairing, seed)
    with atomic(out) as partial_folder:
        finish(partial_folder, recipe, train(partial_folder, recipe, workers))
    sys.stdout.write(f"{out}: SHA-256 of {WEIGHTS}: {sha256_file(out / WEIGHTS)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, arguments, "python -m clinprompt.demo.volumes.train")


if __name__ == "__main__":
    sys.exit(main())
