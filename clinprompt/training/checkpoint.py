"""A file from which interrupted training goes on and ends with the same bytes as without the interruption."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clinprompt.files import atomic

log = logging.getLogger(__name__)

Curves = list[dict[str, float]]


class Kept(Protocol):
    """What is gathered over the epochs beside the parameters: an average, or the best epoch's."""

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """Where training is saved, every how many epochs, and a digest of all that its result depends on.

    The file is one safetensors file whose header carries the epoch's record as JSON, so that a rename replaces all
    of it at once. A file of another computation, or one that can't be read, is passed over.
    """

    path: Path
    every: int
    identity: str

    def save(
        self,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        curves: Curves,
        average: Kept | None = None,
    ) -> None:
        """Write the state after the epochs that `curves` lists."""
        tensors = {f"parameter.{name}": p.detach() for name, p in parameters.items()}
        if average is not None:
            tensors |= {f"average.{name}": t for name, t in average.state().items()}
        for index, state in optimizer.state_dict()["state"].items():
            buffers = {key: value for key, value in state.items() if value is not None}
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in buffers.items()}
        record = {"identity": self.identity, "curves": json.dumps(curves)}
        with atomic(self.path) as partial:
            save_file({name: t.contiguous() for name, t in tensors.items()}, partial, metadata=record)

    def restore(
        self,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: Kept | None = None,
    ) -> Curves:
        """Put the saved state back; returns the curves so far, empty when there is nothing to go on from."""
        checkpoint = self._read()
        if checkpoint is None:
            return []
        curves, tensors = checkpoint
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
        saved = optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                saved["state"].setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(saved)
        if average is not None:
            sums = {k: t for k, t in tensors.items() if k.startswith("average.")}
            device = next(iter(parameters.values())).device
            average.restore({name.removeprefix("average."): t.to(device) for name, t in sums.items()})
        log.info("going on after epoch %d, from %s", len(curves), self.path.name)
        return curves

    def delete(self) -> None:
        """Remove the file; it has served when the result is written."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[Curves, dict[str, Tensor]] | None:
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                record: dict[str, Any] = file.metadata() or {}
                if record.get("identity") != self.identity:
                    return None
                return json.loads(record["curves"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            log.warning("%s can't be read (%s); training starts from the beginning", self.path, error)
            return None
