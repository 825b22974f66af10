"""What a method makes of an image's pixels in front of its first trained tensor, computed once."""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from clinprompt.data.codecs import Intensity
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.features.decode import Item
from clinprompt.features.extract import Encode, encoded
from clinprompt.progress import progress

IN_MEMORY = 1 << 30  # bytes
BATCH = 32
WORKERS = 8  # that decode, where there are as many cores


def prepare(
    encode: Encode,
    items: Sequence[Item],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    intensity: Intensity,
    folder: Path,
) -> torch.Tensor:
    """What `encode` makes of each image's pixels, float32 [n, ...]: on the device, or in a file that is mapped.

    The file is for what is larger than `IN_MEMORY`. It has no name, and goes with the process.

    Args:
        encode: a method's `prepare`, of pixels [B, 3, S, S], which it puts on the device.
        items: (SHA-256 of the file's bytes, file) of each image; an image may stand there twice.
        folder: where the file lies.

    Raises:
        InputMissing, InputCorrupt: an image is not there, not the one of its id, or can't be decoded.
        GpuOutOfMemory: a single image is too much.
    """
    done, room = 0, np.empty(0, np.float32)
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
            room = _room((len(items), *rows.shape[1:]), folder)
        room[done : done + len(ids)] = rows
        done += len(ids)
    found = torch.from_numpy(room)
    return found if isinstance(room, np.memmap) else found.to(device)


def _room(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder) as file:
        # A full disk must be an error here: writing to a mapping without room behind it kills the process.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, np.float32, "r+", shape=shape)
