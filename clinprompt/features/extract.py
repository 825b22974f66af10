"""From image files to frozen features: decoding in worker processes, the backbone's forward pass in this one."""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clinprompt.backbones import Backbone
from clinprompt.data.pixels import Intensity, Preprocessing, decode
from clinprompt.errors import GpuOutOfMemory, InputCorrupt, InputMissing, Interrupted
from clinprompt.files import sha256_bytes

log = logging.getLogger(__name__)

# Images that travel from a worker at once: enough to make the trip cheap, few enough to share out a small batch.
CHUNK = 8
_START = "fork" if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1

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
    items = list(images.items())
    gpu = backbone.device.type == "cuda"
    forward = Forward(backbone.encode_images, batch_size, backbone.device, precision)
    # On a CPU the two would only get in each other's way: all cores decode, then all compute.
    ahead = 2 if gpu else 0
    workers = min(workers, _cores(), -(-len(items) // CHUNK)) if len(items) > CHUNK else 0
    read = partial(_read, backbone.preprocessing, intensity)
    size = backbone.preprocessing.size
    # Two of them, since the copy to a GPU goes on while the next batch is put together.
    buffers = [torch.zeros(batch_size, 3, size, size, pin_memory=gpu) for _ in range(1 + gpu)]
    launched: tuple[list[str], torch.Tensor] | None = None
    batches = _batches(items, read, batch_size=batch_size, workers=workers, ahead=ahead)
    for number, chunks in enumerate(batches):
        pixels = buffers[number % len(buffers)]
        count = _fill(pixels, chunks)
        done = None if launched is None else (launched[0], _finish(*launched))
        start = number * batch_size
        launched = [digest for digest, _ in items[start : start + count]], forward(pixels)
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


def _fill(batch: torch.Tensor, chunks: list[np.ndarray]) -> int:
    """Copy chunks into `batch`, one after the other, and zeros behind them; how many images that are."""
    target, count = batch.numpy(), 0
    for chunk in chunks:
        target[count : count + len(chunk)] = chunk
        count += len(chunk)
    target[count:] = 0
    return count


def _finish(ids: list[str], features: torch.Tensor) -> np.ndarray:
    rows: np.ndarray = features[: len(ids)].cpu().numpy()
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputCorrupt(f"The features of the image {ids[int(np.argmin(finite))]} are not finite numbers.")
    return rows


def _batches(
    items: list[tuple[str, Path]],
    read: Callable[[list[tuple[str, Path]]], np.ndarray],
    *,
    batch_size: int,
    workers: int,
    ahead: int,
) -> Iterator[list[np.ndarray]]:
    """The chunks of batch after batch, decoded; `ahead` batches are on their way while one is being used."""
    bounds = [(start, min(start + batch_size, len(items))) for start in range(0, len(items), batch_size)]
    batches = [[items[i : min(i + CHUNK, stop)] for i in range(start, stop, CHUNK)] for start, stop in bounds]
    if workers == 0:
        yield from ([read(chunk) for chunk in chunks] for chunks in batches)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(_START), initializer=_start_worker)
    try:
        submitted: deque[list[Future[np.ndarray]]] = deque()
        for chunks in batches:
            submitted.append([pool.submit(read, chunk) for chunk in chunks])
            if len(submitted) > ahead:
                yield [future.result() for future in submitted.popleft()]
        while submitted:
            yield [future.result() for future in submitted.popleft()]
    except BrokenProcessPool:
        log.error("A process that decodes images was killed, most often for lack of memory; lower cache.workers.")
        raise Interrupted("a process that decodes images was killed") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave signals to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read(preprocessing: Preprocessing, intensity: Intensity, chunk: list[tuple[str, Path]]) -> np.ndarray:
    """Pixels float32 [n, 3, S, S] of image files whose bytes have the given SHA-256."""
    return np.stack([_pixels(preprocessing, intensity, digest, path) for digest, path in chunk])


def _pixels(preprocessing: Preprocessing, intensity: Intensity, digest: str, path: Path) -> np.ndarray:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputMissing(f"The image {path} does not exist; run the ingest stage again.") from None
    if sha256_bytes(data) != digest:
        raise InputCorrupt(f"The image {path} is not the one that the manifest lists; run the ingest stage again.")
    try:
        return preprocessing.apply(decode(data, intensity))
    except ValueError as error:
        raise InputCorrupt(f"The image {path} can't be decoded: {error}. Run the validate stage again.") from None


def _cores() -> int:
    """Cores that this process may use, which a container can limit."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
