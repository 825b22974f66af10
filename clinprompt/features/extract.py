"""From image files to frozen features: decoding in worker processes, the backbone's forward pass in this one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from clinprompt.backbones.device import computes_bfloat16
from clinprompt.backbones.load import Backbone
from clinprompt.data.codecs import Intensity
from clinprompt.data.dataset import Item
from clinprompt.data.preprocessing import AnyPreprocessing
from clinprompt.errors import GpuOutOfMemory, InputCorrupt
from clinprompt.features.image_batches import decoded

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

    Args:
        images: file by id, the SHA-256 of its bytes.

    Raises: as `encoded`; and
        InputCorrupt: an image's features are not finite.
    """
    for ids, rows in encoded(
        backbone.encode_images,
        list(images.items()),
        backbone.preprocessing,
        backbone.device,
        intensity=intensity,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
    ):
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise InputCorrupt(f"The features of the image {ids[int(np.argmin(finite))]} are not finite numbers.")
        yield ids, rows


def encoded(
    encode: Encode,
    items: Sequence[Item],
    preprocessing: AnyPreprocessing,
    device: torch.device,
    *,
    intensity: Intensity,
    batch_size: int,
    workers: int,
    precision: str,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (ids, float32 [n, ...]) for batch after batch of images: `encode` applied to preprocessed pixels.

    Every forward pass gets exactly `batch_size` images, the last one filled up with zeros: a row's bits do not depend
    on which images were computed beside it.

    Args:
        encode: of pixels [B, 3, S, S], which it puts on the device.
        items: (SHA-256 of the file's bytes, file) of each image.
        workers: processes that decode; 0: this one.
        precision: "bfloat16" computes in mixed precision, where the device has instructions for it.

    Raises:
        InputMissing: an image file is not there.
        InputCorrupt: an image's bytes are not those of its id, or can't be decoded.
        GpuOutOfMemory: a single image is too much.
    """
    gpu = device.type == "cuda"
    forward = Forward(encode, batch_size, device, precision)
    # On a CPU decoding and computing would compete for the cores: all cores decode, then all compute.
    batches = decoded(
        list(items),
        preprocessing,
        intensity,
        batch_size=batch_size,
        workers=workers,
        ahead=2 if gpu else 0,
    )
    launched: tuple[list[str], torch.Tensor] | None = None
    for ids, pixels in batches:
        # On a GPU the last forward pass has been running while this batch was decoded.
        pinned = torch.from_numpy(pixels).pin_memory() if gpu else torch.from_numpy(pixels)
        finished = None if launched is None else (launched[0], _finish(*launched))
        launched = ids, forward(pinned)
        if finished is not None:
            yield finished
    if launched is not None:
        yield launched[0], _finish(*launched)


class Forward:
    """The forward pass at a given precision, in micro-batches that are halved while the GPU's memory is too small."""

    def __init__(self, encode: Encode, batch_size: int, device: torch.device, precision: str) -> None:
        self._encode = encode
        self._device = device
        self._mixed = precision == "bfloat16" and computes_bfloat16(device)
        self.micro_batch = batch_size

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """`encode` applied to pixels [B, 3, S, S]: float32 [B, ...]."""
        while True:
            try:
                with self._mode():
                    return torch.cat(
                        [self._encode(micro_batch).float() for micro_batch in pixels.split(self.micro_batch)]
                    )
            except torch.OutOfMemoryError:
                if self.micro_batch == 1:
                    raise GpuOutOfMemory(
                        "The GPU's memory is too small for the backbone with a single image; use a smaller backbone "
                        "or a GPU that nothing else uses."
                    ) from None
                self.micro_batch = (self.micro_batch + 1) // 2
            torch.cuda.empty_cache()

    @contextmanager
    def _mode(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed))
            if self._device.type == "cuda":
                # cuDNN would otherwise round float32 to TF32.
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
            yield


def _finish(ids: list[str], features: torch.Tensor) -> np.ndarray:
    """Wait for a forward pass; the rows of its images, without those that filled the batch up."""
    rows: np.ndarray = features[: len(ids)].cpu().numpy()
    return rows
