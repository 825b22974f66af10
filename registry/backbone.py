"""The backbone of a payload: embedded where it is small, and named by its digests where it is not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.contract.variables import BACKBONES
from clinprompt.errors import InputMissing
from clinprompt.files import read_json, sha256_bytes, sha256_file
from clinprompt.scratch import ScratchFolder

if TYPE_CHECKING:
    from clinprompt.backbones.m3d_folder import M3DFolder

EMBED_UP_TO = 64 * 2**20  # bytes; larger backbones are referenced by their digests
_PICKLED = ".bin"


@dataclass(frozen=True)
class Hub:
    """Where on the Hugging Face hub a backbone lies."""

    repo: str
    revision: str


@dataclass(frozen=True)
class BackboneFiles:
    """A backbone in open_clip's folder format on this machine, and where others find it."""

    name: str
    digest: str
    folder: Path
    hub: Hub | None = None
    weights: str | None = None  # which file holds them, where several could

    @contextmanager
    def within_reach(self) -> Iterator[Path]:
        """Let a served model that carries no backbone find this one, wherever it lies: by name, in the folder given.

        CLINPROMPT_BACKBONES names that folder meanwhile.
        """
        before = os.environ.get(BACKBONES)
        with ScratchFolder("backbones") as folder:
            Path(folder, self.name).symlink_to(self.folder.resolve(), target_is_directory=True)
            os.environ[BACKBONES] = folder
            try:
                yield Path(folder)
            finally:
                if before is None:
                    del os.environ[BACKBONES]
                else:
                    os.environ[BACKBONES] = before


def embedded_files(backbone: BackboneFiles, with_text: bool) -> tuple[dict[str, Any], dict[str, Path | bytes]]:
    """The reference for model.json and the files to embed, by name; `with_text`: those of the text tower too.

    Embedded weights are always safetensors. Where the backbone's are pickled ones, the digest in the reference is that
    of the folder as it is embedded.

    Raises:
        InputMissing: its config or its weights are not there.
        InputCorrupt: pickled weights hold something else.
    """
    from clinprompt.backbones.folder import M3D_WEIGHTS, TOKENIZER_FILES, WEIGHTS
    from clinprompt.backbones.m3d_folder import open_m3d
    from clinprompt.backbones.table import CONFIG

    folder, volumes = backbone.folder, open_m3d(backbone.folder)
    config, customary = (CONFIG, WEIGHTS) if volumes is None else ("config.json", M3D_WEIGHTS)
    names: tuple[str, ...] = customary if backbone.weights is None else (backbone.weights,)
    weights = next((name for name in names if (folder / name).is_file()), None)
    if weights is None or not (folder / config).is_file():
        raise InputMissing(f"{folder} must hold {config} and one of {', '.join(names)}.")
    if volumes is not None:
        text = volumes.files
    else:
        text = [n for n in ("config.json", *TOKENIZER_FILES) if (folder / n).is_file()] if with_text else []
    needed: dict[str, Path | bytes] = {name: folder / name for name in (config, weights, *text)}
    embed = sum((folder / name).stat().st_size for name in needed) <= EMBED_UP_TO
    digest = backbone.digest
    if embed and weights.endswith(_PICKLED):
        from clinprompt.backbones.unpickled import as_safetensors

        pickled, weights = weights, customary[0]
        needed = {weights if name == pickled else name: path for name, path in needed.items()}
        needed[weights] = plain = as_safetensors(folder / pickled)
        digest = _digest_with(plain, folder, volumes)
    reference = {
        "name": backbone.name,
        "digest": digest,
        "embedded": embed,
        "config": config,
        "weights": weights,
        "files": {name: sha256_of(content) for name, content in needed.items()},
        "hub": {"repo": backbone.hub.repo, "revision": backbone.hub.revision} if backbone.hub else None,
    }
    return reference, needed if embed else {}


def _digest_with(weights: bytes, folder: Path, volumes: "M3DFolder | None") -> str:
    """The digest of a backbone's folder as it would be with other weights."""
    from clinprompt.backbones.folder import m3d_digest, open_clip_digest, text_config
    from clinprompt.backbones.table import CONFIG

    if volumes is not None:
        return m3d_digest(folder, volumes.files, sha256_bytes(weights))
    model_cfg = read_json(folder / CONFIG)["model_cfg"]
    return open_clip_digest(folder, sha256_bytes(weights), text_config(folder, model_cfg, None))


def sha256_of(content: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file."""
    return sha256_bytes(content) if isinstance(content, bytes) else sha256_file(content)
