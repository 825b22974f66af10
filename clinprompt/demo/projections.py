"""`python -m clinprompt.demo.projections`: trains what joins the towers of `open-towers`, on drawn scans alone.

Both towers stay as they are. The features of drawn scenes of five organs and of their captions are computed once; the
projections and the logit scale are trained on those (symmetric InfoNCE, Radford et al. 2021), which takes seconds.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clinprompt import cli
from clinprompt.backbones.fetch import PROJECTIONS
from clinprompt.backbones.open_towers import WIDTH
from clinprompt.demo.pairs import Pairs, encoded_pairs
from clinprompt.demo.projections_card import model_card
from clinprompt.demo.towers import learning_rate, make_optimizer, write_record
from clinprompt.files import atomic, sha256_file, write_text

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "backbones" / "weights" / "open-towers"
_LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class Recipe:
    """Everything that the projections depend on, beside the code and the towers."""

    scenes: int = 1800
    held_out: int = 200
    captions: int = 8
    embed_dim: int = 256
    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 50
    seed: int = 2028


@dataclass(frozen=True)
class Variant:
    """What the recipe was chosen among: the shape of the projections, the loss, and which towers have one."""

    shape: Literal["linear", "mlp"] = "linear"
    loss: Literal["infonce", "sigmoid"] = "infonce"
    sides: Literal["both", "image"] = "both"


class Joint(nn.Module):
    """Projections of both towers' features, the logit scale, and the bias that the sigmoid loss needs.

    Args:
        scales: what the features are divided with before anything else, so that their entries are of size 1.
    """

    def __init__(self, variant: Variant, embed_dim: int, scales: tuple[float, float]) -> None:
        super().__init__()
        e = WIDTH if variant.sides == "image" else embed_dim
        self.scales = scales
        self.image = _projection(variant.shape, e)
        self.text = nn.Identity() if variant.sides == "image" else _projection(variant.shape, e)
        self.logit_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(-10.0 if variant.loss == "sigmoid" else 0.0))
        self.bias.requires_grad_(variant.loss == "sigmoid")

    def images(self, features: Tensor) -> Tensor:
        """Unit features [N, e] of the image tower's [N, 384]."""
        return F.normalize(self.image(features / self.scales[0]), dim=-1)

    def texts(self, features: Tensor) -> Tensor:
        """Unit features [N, e] of the text tower's [N, 384]."""
        return F.normalize(self.text(features / self.scales[1]), dim=-1)

    def scale(self) -> Tensor:
        """What cosines are multiplied with."""
        return self.logit_scale.exp().clamp(max=_LARGEST_SCALE)


def train(pairs: Pairs, recipe: Recipe, variant: Variant) -> Joint:
    """Fit the projections to pairs; each step draws images, and a caption for each."""
    torch.manual_seed(recipe.seed)
    scales = float(pairs.images.square().mean().sqrt()), float(pairs.texts.square().mean().sqrt())
    joint = Joint(variant, recipe.embed_dim, scales)
    optimizer = make_optimizer(joint, recipe)
    rng = np.random.default_rng([recipe.seed, 23])
    loss_of: Callable[[Joint, Tensor, Tensor], Tensor] = _infonce if variant.loss == "infonce" else _sigmoid
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        rows = rng.choice(len(pairs.images), min(recipe.batch_size, len(pairs.images)), replace=False)
        captions = rng.integers(0, pairs.texts.shape[1], len(rows))
        loss = loss_of(joint, joint.images(pairs.images[rows]), joint.texts(pairs.texts[rows, captions]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    log.info("%s: loss %.3f", variant, loss.item())
    return joint.eval().requires_grad_(False)


def retrieval(joint: Joint, pairs: Pairs) -> dict[str, float]:
    """Share of images whose own caption is the nearest, or among the five nearest, of 100."""
    hits, count = {1: 0, 5: 0}, 0
    for start in range(0, len(pairs.images) - 99, 100):
        images, texts = pairs.images[start : start + 100], pairs.texts[start : start + 100, 0]
        ranks = (joint.images(images) @ joint.texts(texts).T).argsort(dim=-1, descending=True)
        own = torch.arange(100)[:, None]
        count += 100
        for k in hits:
            hits[k] += int((ranks[:, :k] == own).any(-1).sum())
    return {f"retrieval_at_{k}_of_100": round(found / max(count, 1), 4) for k, found in hits.items()}


def state_of(joint: Joint) -> dict[str, Tensor]:
    """Linear projections by their names in the model, in half precision; the backbone has no place for others."""
    sides = [torch.eye(WIDTH) if isinstance(side, nn.Identity) else side.weight for side in (joint.image, joint.text)]
    image, text = (torch.as_tensor(side) / scale for side, scale in zip(sides, joint.scales, strict=True))
    state = {"visual.proj": image.T, "text.proj.weight": text, "logit_scale": joint.scale().log()}
    return {name: tensor.to(torch.float16).contiguous() for name, tensor in state.items()}


def _projection(shape: str, e: int) -> nn.Module:
    if shape == "linear":
        return nn.Linear(WIDTH, e, bias=False)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.GELU(), nn.Linear(WIDTH, e, bias=False))


def _infonce(joint: Joint, images: Tensor, texts: Tensor) -> Tensor:
    logits = joint.scale() * images @ texts.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _sigmoid(joint: Joint, images: Tensor, texts: Tensor) -> Tensor:
    """Each pair by itself, as SigLIP does it (Zhai et al. 2023)."""
    logits = joint.scale() * images @ texts.T + joint.bias
    signs = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


app = cli.application()


@app.command(help=__doc__)
def write_projections(
    out: Annotated[
        Path, typer.Option(help="where they go", show_default="the package", callback=cli.folder_to_write)
    ] = FOLDER,
    wheels: Annotated[Path | None, typer.Option(help="a folder with the pinned wheels", show_default="by pip")] = None,
    cache: Annotated[Path | None, typer.Option(help="a file for the features, which is used where it exists")] = None,
    scenes: int = Recipe.scenes,
    held_out: int = Recipe.held_out,
    steps: int = Recipe.steps,
    seed: int = Recipe.seed,
) -> None:
    """Encode, train, and write projections, recipe and card."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    recipe = Recipe(scenes=scenes, held_out=held_out, steps=steps, seed=seed)
    pairs = encoded_pairs(recipe.scenes + recipe.held_out, recipe.captions, recipe.seed, wheels, cache)
    joint = train(pairs.part(recipe.held_out, None), recipe, Variant())
    results = retrieval(joint, pairs.part(0, recipe.held_out))
    finish(out, joint, recipe, results)
    sys.stdout.write(f"{out}: SHA-256 of {PROJECTIONS}: {sha256_file(out / PROJECTIONS)}\n")


def finish(folder: Path, joint: Joint, recipe: Recipe, results: dict[str, float]) -> None:
    """Write the projections, the recipe and the card of the whole backbone."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / PROJECTIONS) as partial:
        save_file(state_of(joint), partial)
    digest = sha256_file(folder / PROJECTIONS)
    parameters = sum(tensor.numel() for tensor in load_file(folder / PROJECTIONS).values())
    facts: dict[str, Any] = {"recipe": asdict(recipe), "results": results, "parameters": parameters, "sha256": digest}
    write_record(folder, facts, ("open_clip", open_clip.__version__))
    write_text(folder / "README.md", model_card({"digest": digest, **asdict(recipe), **results}))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, arguments, "python -m clinprompt.demo.projections")


if __name__ == "__main__":
    sys.exit(main())
