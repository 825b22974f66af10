"""Precompute what a method computes of an image's pixels before its first trained tensor, once for all epochs."""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from clinprompt.data.codecs import Intensity
from clinprompt.data.dataset import Item
from clinprompt.data.preprocessing import AnyPreprocessing
from clinprompt.features.extract import Encode, encoded
from clinprompt.progress import progress

IN_MEMORY = 1 << 30  # bytes
BATCH = 32
WORKERS = 8  # that decode, where there are as many cores


def precompute(
    encode: Encode,
    items: Sequence[Item],
    preprocessing: AnyPreprocessing,
    device: torch.device,
    *,
    intensity: Intensity,
    folder: Path,
) -> torch.Tensor:
    """`encode` applied to each image's pixels, float32 [n, ...]: on the device, or in a mapped file if too large.

    Beyond `IN_MEMORY` it is a file, which has no name and vanishes with the process.

    Args:
        encode: a method's `prepare`, of pixels [B, 3, S, S], which it puts on the device.
        items: (SHA-256 of the file's bytes, file) of each image; an image may be listed twice.
        folder: where the file lies.

    Raises:
        InputMissing, InputCorrupt: an image is missing, does not have its id's digest, or can't be decoded.
        GpuOutOfMemory: a single image is too much.
    """
    done, outputs = 0, np.empty(0, np.float32)
    batches = encoded(
        encode,
        items,
        preprocessing,
        device,
        intensity=intensity,
        batch_size=BATCH,
        workers=WORKERS,
        precision="float32",
    )
    for ids, rows in progress(batches, "preparing images", total=-(-len(items) // BATCH), unit="batch"):
        if not done:
            outputs = _allocate((len(items), *rows.shape[1:]), folder)
        outputs[done : done + len(ids)] = rows
        done += len(ids)
    tensor = torch.from_numpy(outputs)
    return tensor if isinstance(outputs, np.memmap) else tensor.to(device)


def _allocate(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """Float32 memory, or a mapped file in `folder` for what is larger than `IN_MEMORY`."""
    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        # A full disk must be an error here: writing to a mapping without room behind it kills the process.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.float32, "r+", shape=shape)
