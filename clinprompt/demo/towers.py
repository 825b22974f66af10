"""What the trainings of the small towers share: tokeniser, optimiser, learning rate and record."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from clinprompt.cli import folder_to_write
from clinprompt.errors import BadParams
from clinprompt.files import write_json

RECORD = "recipe.json"
_UNKNOWN = "[UNK]"


class Descent(Protocol):
    """The part of a recipe that says how weights are descended."""

    @property
    def steps(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def warmup(self) -> int: ...


def word_pieces(vocabulary: Path, start: str, end: str) -> Tokenizer:
    """A WordPiece tokenizer in small letters.

    Args:
        vocabulary: one entry a line, in the order of the ids. It is kept rather than learnt anew: the trainer of the
            tokenizers library breaks ties at random.
        start, end: the tokens around every text.
    """
    ids = {entry: number for number, entry in enumerate(vocabulary.read_text(encoding="utf-8").split())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", _UNKNOWN, start, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    return tokenizer


def make_optimizer(model: nn.Module, recipe: Descent) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def learning_rate(step: int, recipe: Descent) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.learning_rate * (1 + float(np.cos(np.pi * done))) / 2


def write_record(folder: Path, facts: Mapping[str, Any], library: tuple[str, str]) -> None:
    """Write the record: the facts, and what else the weights' last bits depend on.

    Args:
        library: name and version of the one that the model comes from.
    """
    threads = torch.get_num_threads()  # the order of sums depends on it
    versions = {"python": platform.python_version(), "torch": torch.__version__, library[0]: library[1]}
    write_json(folder / RECORD, {**facts, "threads": threads, "versions": versions})


def model_to_write(folder: Path) -> Path:
    """A callback for a folder that is replaced as a whole: one that holds anything but such a model is refused.

    Raises:
        BadParams: it holds other files.
    """
    folder_to_write(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise BadParams(f"{folder} (--out) holds other files, which would be lost; name another folder.")
    return folder
