"""From image files to frozen features: decoding in worker processes, the backbone's forward pass in this one."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clinprompt.backbones import Backbone
from clinprompt.data.pixels import Intensity, Preprocessing, decode
from clinprompt.errors import ClinpromptError, GpuOutOfMemory, InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes

# Images that travel from a worker at once: enough to make the trip cheap, few enough to share out a small batch.
CHUNK = 8

Encode = Callable[[torch.Tensor], torch.Tensor]


def extract(
    backbone: Backbone,
    images: Mapping[str, Path],
    *,
    intensity: Intensity,
    batch_size: int,
    workers: int,
    precision: str,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (ids, features float32 [n, e], projected and not normalised) for batch after batch of `images`.

    Every forward pass gets exactly `batch_size` images, the last one filled up with zeros: a row's bits do not depend
    on which images were computed beside it.

    Args:
        images: file by id, the SHA-256 of its bytes.
        workers: processes that decode; 0: this one.
        precision: "bfloat16" computes in mixed precision, on a GPU only.

    Raises:
        InputMissing: an image file is not there.
        InputCorrupt: an image's bytes are not those of its id, or can't be decoded, or its features are not finite.
        GpuOutOfMemory: a single image is too much.
    """
    ids = list(images)
    forward = Forward(backbone.encode_images, batch_size, backbone.device, precision)
    launched: tuple[list[str], torch.Tensor] | None = None
    pinned = backbone.device.type == "cuda"
    batches = _batches(images, backbone.preprocessing, intensity, batch_size=batch_size, workers=workers, pinned=pinned)
    for start, pixels in zip(range(0, len(ids), batch_size), batches, strict=True):
        # On a GPU the last forward pass has been running while this batch was put together.
        done = None if launched is None else (launched[0], _finish(*launched))
        launched = ids[start : start + batch_size], forward(pixels)
        if done is not None:
            yield done
    if launched is not None:
        yield launched[0], _finish(*launched)


class Forward:
    """The forward pass in the asked precision; when a GPU's memory is too small, in halves, quarters, …"""

    def __init__(self, encode: Encode, batch_size: int, device: torch.device, precision: str) -> None:
        self._encode = encode
        self._device = device
        self._mixed = precision == "bfloat16" and device.type == "cuda"
        self.micro_batch = batch_size

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features float32 [B, e] of pixels [B, 3, S, S]."""
        while True:
            try:
                with ExitStack() as stack:
                    stack.enter_context(torch.inference_mode())
                    if self._device.type == "cuda":
                        stack.enter_context(torch.autocast("cuda", torch.bfloat16, enabled=self._mixed))
                        # cuDNN would otherwise round float32 to TF32.
                        stack.enter_context(torch.backends.cudnn.flags(deterministic=True, allow_tf32=False))
                    return torch.cat([self._encode(part).float() for part in pixels.split(self.micro_batch)])
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise GpuOutOfMemory(
                        "The GPU's memory is too small for the backbone with a single image; use a smaller backbone "
                        "or a GPU that nothing else uses."
                    ) from None
                self.micro_batch = (self.micro_batch + 1) // 2
            torch.cuda.empty_cache()


def _finish(ids: list[str], features: torch.Tensor) -> np.ndarray:
    rows: np.ndarray = features[: len(ids)].cpu().numpy()
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputCorrupt(f"The features of the image {ids[int(np.argmin(finite))]} are not finite numbers.")
    return rows


class _Images(Dataset[torch.Tensor | ClinpromptError]):
    """Chunks of preprocessed images [n, 3, S, S]. An error is returned: raised, it would come with a traceback."""

    def __init__(self, images: Mapping[str, Path], preprocessing: Preprocessing, intensity: Intensity) -> None:
        self._images = list(images.items())
        self._preprocessing = preprocessing
        self._intensity = intensity

    def __getitem__(self, chunk: Sequence[int]) -> torch.Tensor | ClinpromptError:
        try:
            return torch.from_numpy(np.stack([self._pixels(*self._images[i]) for i in chunk]))
        except ClinpromptError as error:
            return error

    def _pixels(self, digest: str, path: Path) -> np.ndarray:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise InputMissing(f"The image {path} does not exist; run the ingest stage again.") from None
        if sha256_bytes(data) != digest:
            raise InputCorrupt(f"The image {path} is not the one that the manifest lists; run the ingest stage again.")
        try:
            return self._preprocessing.apply(decode(data, self._intensity))
        except ValueError as error:
            raise InputCorrupt(f"The image {path} can't be decoded: {error}. Run the validate stage again.") from None


def _batches(
    images: Mapping[str, Path],
    preprocessing: Preprocessing,
    intensity: Intensity,
    *,
    batch_size: int,
    workers: int,
    pinned: bool,
) -> Iterator[torch.Tensor]:
    """Batches [batch_size, 3, S, S] of preprocessed images; each is valid until the next but one is asked for."""
    chunks = [list(range(i, min(i + CHUNK, len(images)))) for i in range(0, len(images), CHUNK)]
    workers = min(workers, len(chunks), _cores()) if len(chunks) > 1 else 0
    loader = DataLoader(
        _Images(images, preprocessing, intensity),
        batch_size=None,
        sampler=chunks,
        num_workers=workers,
        # One batch ahead of the one that is being computed.
        prefetch_factor=1 + -(-batch_size // (CHUNK * workers)) if workers else None,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_step_back,
    )
    shape = (batch_size, 3, preprocessing.size, preprocessing.size)
    batch, other = (torch.zeros(shape, pin_memory=pinned) for _ in range(2))
    filled = 0
    for chunk in loader:
        if isinstance(chunk, ClinpromptError):
            raise chunk
        while len(chunk):
            taken = chunk[: batch_size - filled]
            batch[filled : filled + len(taken)] = taken
            filled += len(taken)
            chunk = chunk[len(taken) :]  # noqa: PLW2901 - the rest opens the next batch
            if filled == batch_size:
                yield batch
                batch, other, filled = other, batch, 0
    if filled:
        batch[filled:] = 0
        yield batch


def _step_back(worker: int) -> None:
    """Decode in the gaps that the forward pass leaves: its threads wait for each other, so that one that is pushed
    aside by a worker holds up the others."""
    os.nice(10)


def _cores() -> int:
    """Cores that this process may use, which a container can limit."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
