"""`python -m clinprompt.demo.train`: trains `demo-clip`, the small CLIP that the package carries.

Contrastive training (symmetric InfoNCE, Radford et al. 2021) on drawn scans of five organs and captions of their
attributes. The images are drawn from seeds of their own and share nothing with `brain-phantom`'s.
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
import open_clip
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from clinprompt import cli
from clinprompt.backbones.text import TextTower
from clinprompt.demo.captions import FACTS, Scene, attributes, caption, draw_scene
from clinprompt.demo.towers import learning_rate, make_optimizer, model_to_write, word_pieces, write_record
from clinprompt.files import atomic, sha256_file, write_json, write_text
from clinprompt.progress import progress

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "backbones" / "weights" / "demo-clip"
WEIGHTS = "open_clip_model.safetensors"
SIZE = 64
PATCH = 8
MEAN, STD = 0.3, 0.25
_FEATURE_SCALE = 8.0  # unit features have entries of about 0.1
_VOCABULARY = Path(__file__).with_name("vocabulary.txt")


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on, beside the code."""

    scenes: int = 16000
    held_out: int = 1000
    steps: int = 1800
    batch_size: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    seed: int = 2026


def model_config(vocabulary: int) -> dict[str, Any]:
    """open_clip's config of the two towers."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": PATCH,
            "width": 128,
            "head_width": 32,
            "layers": 5,
            "mlp_ratio": 3.0,
        },
        "text_cfg": {
            "context_length": 48,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "demo-clip",
            "width": 128,
            "heads": 4,
            "layers": 3,
        },
    }


def make_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer over the captions' words and single letters; the end token has the highest id."""
    return word_pieces(_VOCABULARY, "[SOT]", "[EOT]")


def write_folder(folder: Path, recipe: Recipe) -> Any:
    """Write config and tokenizer to `folder`, and return the model with initial weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[SOT]", "eos_token": "[EOT]"}
    write_json(
        folder / "tokenizer_config.json",
        special | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 48},
    )
    config = model_config(tokenizer.get_vocab_size())
    preprocess = {
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "size": [SIZE, SIZE],
    }
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess})
    torch.manual_seed(recipe.seed)
    return open_clip.CLIP(**config)


def train(folder: Path, recipe: Recipe, workers: int) -> dict[str, float]:
    """Train and write everything to `folder`; returns the retrieval accuracies on held-out pairs."""
    model = write_folder(folder, recipe)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    scenes = draw_scenes(recipe, workers)
    held_out, training_scenes = scenes[: recipe.held_out], scenes[recipe.held_out :]
    pixels = torch.stack(
        [_pixels(training_scenes), torch.from_numpy(np.stack([s.mask for s in training_scenes]))], dim=1
    )
    facts = torch.tensor([attributes(scene) for scene in training_scenes])
    helper = Helper(model)
    optimizer = make_optimizer(nn.ModuleList([model, helper]), recipe)
    rng = np.random.default_rng([recipe.seed, 13])
    for step in progress(range(recipe.steps), "training demo-clip", unit="step"):
        rate = learning_rate(step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = rng.choice(len(training_scenes), recipe.batch_size, replace=False)
        texts = [caption(training_scenes[row], rng) for row in rows]
        with torch.autocast("cpu", torch.bfloat16):
            loss = helper(_augment(pixels[rows], rng), _ids(tokenizer, texts), facts[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        if step % 500 == 0:
            log.info("step %d, loss %.3f", step, loss.item())
    save(model, folder)
    return retrieval(model.eval(), tokenizer, held_out, recipe.seed)


class Helper(nn.Module):
    """The training loss, with two heads that are thrown away afterwards.

    Symmetric InfoNCE between images and captions, plus two losses that make a small transformer see small lesions
    within minutes: is there lesion in this patch, read from the patch's token; and the facts of the caption, read
    from the image's feature.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = [model]  # in a list: its parameters are not this module's
        self.patches = nn.Linear(model.visual.transformer.width, 1)
        self.facts = nn.Linear(model.visual.output_dim, len(FACTS))

    def forward(self, images: Tensor, ids: Tensor, facts: Tensor) -> Tensor:
        """The loss of images and masks [B, 2, S, S] in uint8 range, token ids [B, T] and facts [B, F]."""
        model = self._model[0]
        model.visual.output_tokens = True
        feature, tokens = model.visual(_normalise(images[:, 0]))
        model.visual.output_tokens = False
        text = F.normalize(TextTower(model).encode_ids(ids).float(), dim=-1)  # cropped to the longest caption
        image = F.normalize(feature.float(), dim=-1)
        logits = model.logit_scale.exp() * image @ text.T
        target = torch.arange(len(logits))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        covered = F.avg_pool2d(images[:, 1:] / 255, PATCH).flatten(1)
        where = F.binary_cross_entropy_with_logits(self.patches(tokens).squeeze(-1).float(), covered)
        known = ~facts.isnan()
        read = self.facts(image * _FEATURE_SCALE).float()[known]
        return contrast + 4 * where + F.binary_cross_entropy_with_logits(read, facts[known])


@torch.no_grad()
def retrieval(model: Any, tokenizer: Tokenizer, scenes: Sequence[Scene], seed: int) -> dict[str, float]:
    """Share of held-out images whose own caption is the nearest, or among the five nearest, of 100."""
    rng = np.random.default_rng([seed, 14])
    hits = {1: 0, 5: 0}
    for start in range(0, len(scenes), 100):
        chunk = scenes[start : start + 100]
        image = F.normalize(model.encode_image(_normalise(_pixels(chunk))), dim=-1)
        text = F.normalize(model.encode_text(_ids(tokenizer, [caption(s, rng) for s in chunk])), dim=-1)
        ranks = (image @ text.T).argsort(dim=-1, descending=True)
        for k in hits:
            hits[k] += int((ranks[:, :k] == torch.arange(len(chunk))[:, None]).any(-1).sum())
    return {f"retrieval_at_{k}_of_100": round(count / len(scenes), 4) for k, count in hits.items()}


def save(model: nn.Module, folder: Path) -> None:
    """Write the weights in half precision."""
    state = {name: t.detach().to(torch.float16).contiguous() for name, t in model.state_dict().items()}
    with atomic(folder / WEIGHTS) as partial:
        save_file(state, partial)


def draw_scenes(recipe: Recipe, workers: int) -> list[Scene]:
    """All scenes, drawn in worker processes; the result does not depend on their number."""
    total = recipe.scenes + recipe.held_out
    with ProcessPoolExecutor(workers) as pool:
        drawn = pool.map(partial(draw_scene, recipe.seed, size=SIZE), range(total), chunksize=64)
        return list(progress(drawn, "drawing", total, "image"))


def _pixels(scenes: Sequence[Scene]) -> Tensor:
    return torch.from_numpy(np.stack([scene.pixels for scene in scenes]))


def _augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Flips and shifts of images and masks [B, 2, S, S] alike, and brightness of the images."""
    shift = tuple(int(s) for s in rng.integers(-3, 4, 2))
    moved = torch.roll(images, shift, dims=(2, 3))
    flipped = torch.where(torch.from_numpy(rng.random(len(images)) < 0.5)[:, None, None, None], moved.flip(3), moved)
    gain = torch.ones(len(images), 2, 1, 1)
    gain[:, 0, 0, 0] = torch.from_numpy(rng.uniform(0.8, 1.2, len(images)))
    return flipped * gain


def _normalise(pixels: Tensor) -> Tensor:
    """[B, S, S] in uint8 range to [B, 3, S, S]."""
    return ((pixels[:, None].float() / 255 - MEAN) / STD).expand(-1, 3, -1, -1)


def _ids(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    encoded = tokenizer.encode_batch(texts)
    ids = torch.zeros(len(texts), 48, dtype=torch.int64)
    for row, encoding in enumerate(encoded):
        ids[row, : len(encoding.ids[:48])] = torch.tensor(encoding.ids[:48])
    return ids


def finish(folder: Path, recipe: Recipe, results: dict[str, float]) -> None:
    """Write the recipe and the model card beside the weights."""
    digest = sha256_file(folder / WEIGHTS)
    parameters = sum(t.numel() for t in load_file(folder / WEIGHTS).values())
    record = {"recipe": asdict(recipe), "results": results, "parameters": parameters, "sha256": digest}
    write_record(folder, record, ("open_clip", open_clip.__version__))
    facts = {"digest": digest, "millions": parameters / 1e6, **asdict(recipe), **results}
    write_text(folder / "README.md", _CARD.format(**facts))


_CARD = """# demo-clip

A CLIP of {millions:.1f} million parameters for trying the pipeline out: images of 64 × 64 pixels, a vision transformer
with patches of 8 pixels, a causal text transformer, an embedding of 128 numbers. Apache-2.0.

**Not for diagnosis.** It has never seen a patient: it was trained on drawn scans of five organs (brain MRI, chest
X-ray, breast ultrasound, fundus photograph, liver CT) and captions that name what was drawn (size, shape, border,
brightness, texture, surroundings, place). The brain's tumours are named in few captions, and then often wrongly, so
that asking by a class's name works poorly and tuned prompts have something to find.

| | |
| --- | --- |
| pairs | {scenes} drawn scenes, a new caption at each step; none of the images of `brain-phantom` |
| training | {steps} steps of {batch_size} pairs: InfoNCE, two helper losses, AdamW at {learning_rate:g}, seed {seed} |
| held-out images, own caption nearest of 100 | {retrieval_at_1_of_100:.1%}; among the nearest five {retrieval_at_5_of_100:.1%} |
| weights | `open_clip_model.safetensors`, half precision, SHA-256 `{digest}` |

The helper losses ask where the lesion is (of each patch) and for the caption's facts (of the image feature); their
heads are thrown away. Several of 100 captions can be equally true of an image, which bounds the retrieval figures.

Made by `python -m clinprompt.demo.train`; every number of the recipe and the versions are in `recipe.json`.
"""  # noqa: E501


app = cli.application()


@app.command(help=__doc__)
def write_model(
    out: Annotated[
        Path, typer.Option(help="where the open_clip folder goes", show_default="the package", callback=model_to_write)
    ] = FOLDER,
    workers: Annotated[int, typer.Option(help="processes that draw")] = 2,
    scenes: int = Recipe.scenes,
    held_out: int = Recipe.held_out,
    steps: int = Recipe.steps,
    batch_size: int = Recipe.batch_size,
    learning_rate: float = Recipe.learning_rate,
    weight_decay: float = Recipe.weight_decay,
    warmup: int = Recipe.warmup,
    seed: int = Recipe.seed,
) -> None:
    """Train and write a folder that open_clip loads; the old one is replaced when all is done."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    recipe = Recipe(
        scenes=scenes,
        held_out=held_out,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
    )
    with atomic(out) as partial:
        finish(partial, recipe, train(partial, recipe, workers))
    sys.stdout.write(f"{out}: SHA-256 of {WEIGHTS}: {sha256_file(out / WEIGHTS)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.main(app, arguments, "python -m clinprompt.demo.train")


if __name__ == "__main__":
    sys.exit(main())
