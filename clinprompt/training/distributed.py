"""Data parallel training: the processes that torchrun starts share every batch's examples."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone.

    All must see the same files: each resumes from the same checkpoint. The first writes.
    """

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints and results."""
        return self.rank == 0

    def share(self, rows: np.ndarray, parts: int) -> tuple[list[np.ndarray], list[float]]:
        """This process's micro-batches of a batch, at most `parts`, and what share of the batch each is.

        With more processes than examples, those without any compute one that counts nothing, to keep in step.
        """
        own_rows = np.array_split(rows, self.size)[self.rank]
        if not len(own_rows):
            return [rows[:1]], [0.0]
        micro_batches = np.array_split(own_rows, min(parts, len(own_rows)))
        return micro_batches, [len(part) / len(rows) for part in micro_batches]

    def span(self, n: int) -> range:
        """This process's part of n examples."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.size == 1:
            return
        terms = list(tensors)
        flat = torch.cat([t.reshape(-1) for t in terms])
        dist.all_reduce(flat)
        for tensor, total in zip(terms, flat.split([t.numel() for t in terms]), strict=True):
            tensor.copy_(total.view_as(tensor))


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process's place among those that torchrun has started, each with a GPU of its own when `device` is "cuda".

    Without torchrun, the process is alone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
