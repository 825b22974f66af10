"""What the processes of a training run that fails; each of them imports this file, and so nothing else of the tests."""

import torch

from clinprompt.training.distributed import joined


def short_of_memory(kind: type[Exception]) -> int:
    """The second process fails while the first waits for it."""
    with joined("cpu") as ranks:
        if ranks.rank == 1:
            raise kind("the second has no room")
        ranks.add([torch.ones(1)])
    return ranks.size
