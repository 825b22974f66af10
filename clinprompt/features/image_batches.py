"""Batches of preprocessed images, decoded by worker processes straight into memory that they share with this one."""

import ctypes
import logging
import math
import mmap
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from clinprompt.data.codecs import Intensity, decode_image
from clinprompt.data.dataset import Item, read_image
from clinprompt.data.preprocessing import AnyPreprocessing
from clinprompt.errors import InputCorrupt, Interrupted

log = logging.getLogger(__name__)

# Images that a worker takes at once: enough to make the hand-over cheap, few enough to share out a small batch.
CHUNK = 8
_PR_SET_PDEATHSIG = 1


def decoded(
    items: list[Item],
    preprocessing: AnyPreprocessing,
    intensity: Intensity,
    *,
    batch_size: int,
    workers: int,
    ahead: int,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (ids, pixels float32 [batch_size, *shape]) for batch after batch; rows behind the last id are zeros.

    The shape is what the preprocessing gives. The pixels are overwritten when the next batch is asked for.

    Args:
        items: (SHA-256 of the file's bytes, file) of each image.
        workers: processes that decode; 0: this one. Elsewhere than on Linux it is always this one.
        ahead: batches that are decoded while the caller uses one.

    Raises:
        InputMissing: an image file is not there.
        InputCorrupt: an image's bytes are not those of its id, or can't be decoded.
        Interrupted: a worker was killed.
    """
    workers = min(workers, _usable_cores(), -(-len(items) // CHUNK))
    parallel = workers > 0 and len(items) > CHUNK and sys.platform == "linux"
    shape = (1 + ahead if parallel else 1, batch_size, *preprocessing.shape)
    # Anonymous memory is shared with forked processes, and a container's small /dev/shm does not limit it.
    slots = np.frombuffer(mmap.mmap(-1, 4 * math.prod(shape)), np.float32).reshape(shape)
    reader = _Reader(slots, preprocessing, intensity)
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    filled_slots = _fill_in_parallel(reader, batches, workers) if parallel else _fill_in_turn(reader, batches)
    for batch, slot in zip(batches, filled_slots, strict=True):
        slots[slot, len(batch) :] = 0
        yield [digest for digest, _ in batch], slots[slot]


class _Reader:
    """Reads, checks, decodes and preprocesses image files into rows of a slot, the memory of one batch."""

    def __init__(self, slots: np.ndarray, preprocessing: AnyPreprocessing, intensity: Intensity) -> None:
        self.slots = slots
        self._preprocessing = preprocessing
        self._intensity = intensity

    def read(self, slot: int, first: int, chunk: list[Item]) -> None:
        """Fill the rows from `first` on with the images of `chunk`."""
        for row, item in enumerate(chunk, first):
            self.slots[slot, row] = self._pixels(item)

    def _pixels(self, item: Item) -> np.ndarray:
        data = read_image(item)
        try:
            return self._preprocessing.apply(decode_image(data, self._intensity))
        except ValueError as error:
            raise InputCorrupt(
                f"The image {item[1]} can't be decoded: {error}. Run the validate stage again."
            ) from None


def _fill_in_turn(reader: _Reader, batches: list[list[Item]]) -> Iterator[int]:
    """Yield slot 0 for batch after batch, decoded in this process."""
    for batch in batches:
        reader.read(0, 0, batch)
        yield 0


def _fill_in_parallel(reader: _Reader, batches: list[list[Item]], workers: int) -> Iterator[int]:
    """Yield the slot of batch after batch, while as many batches as there are other slots are being decoded."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start_worker, (reader,))
    submitted: deque[tuple[int, list[Future[None]]]] = deque()
    try:
        for number, batch in enumerate(batches):
            slot = number % len(reader.slots)
            chunks = [(first, batch[first : first + CHUNK]) for first in range(0, len(batch), CHUNK)]
            submitted.append((slot, [pool.submit(_fill, slot, first, chunk) for first, chunk in chunks]))
            if len(submitted) == len(reader.slots):
                yield _wait(*submitted.popleft())
        while submitted:
            yield _wait(*submitted.popleft())
    except BrokenProcessPool:
        log.error("A process that decodes images was killed, most often for lack of memory; lower cache.workers.")
        raise Interrupted("a process that decodes images was killed") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(slot: int, chunks: list[Future[None]]) -> int:
    for chunk in chunks:
        chunk.result()
    return slot


# A worker's own reader: it must come by inheritance, since a pickled one would write to a copy of the memory.
_worker_reader: _Reader


def _start_worker(reader: _Reader) -> None:
    """Initialise a worker: signals are left to the parent, and the worker ends with it even if it is killed."""
    global _worker_reader  # noqa: PLW0603
    _worker_reader = reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _fill(slot: int, first: int, chunk: list[Item]) -> None:
    _worker_reader.read(slot, first, chunk)


def _usable_cores() -> int:
    """Cores that this process may use, which a container can limit."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
