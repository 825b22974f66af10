"""How much the feature cache costs beyond bare decoding and a bare forward pass of the same images.

    python -m benchmarks.cache [--only demo-clip] [--repeats 3]

Prints one JSON object per model. `ratio` is the median over the repeats of

    total time of `update_store`, from image files to a finished store
    / (time to decode and preprocess with the same number of processes, not counting their start
       + time of the forward pass alone, same batch size)

`cpu_ratio` is the same with processor seconds, which a busy machine disturbs less than the clock. Both are to stay
below 1.15.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from clinprompt.backbones.device import computes_bfloat16
from clinprompt.backbones.fetched import fetched_folder
from clinprompt.backbones.load import Backbone, Built, load_backbone
from clinprompt.data.codecs import decode
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.features.update import update_store
from clinprompt.files import sha256_file


def main() -> None:
    options = _options()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps(_machine(device)))
    for name, (backbone, count, side) in _cases(device).items():
        if options.only in (None, name):
            print(
                json.dumps({"model": name} | _measure(backbone(), options.images or count, side, options)), flush=True
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="measure this model alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="at least 1")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--images", type=int, help="so many instead of each model's own number")
    return parser.parse_args()


def _machine(device: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    cores = len(os.sched_getaffinity(0))
    return {"device": name, "cores": cores, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)}


def _cases(device: str) -> dict[str, tuple[Callable[[], Backbone], int, int]]:
    """Model, number of images and their side in pixels; `open-towers` where it has been fetched."""
    fetched = fetched_folder("open-towers").is_dir()
    towers = {"open-towers": (lambda: load_backbone("open-towers", device=device), 256, 224)} if fetched else {}
    return towers | {
        "demo-clip": (lambda: load_backbone("demo-clip", device=device), 1024, 128),
        "ViT-B-16": (lambda: _random_vit(device), 64, 224),
    }


def _random_vit(device: str) -> Backbone:
    model = open_clip.create_model("ViT-B-16", pretrained=None).to(device).eval().requires_grad_(False)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Backbone(
        name="ViT-B-16",
        digest="0" * 64,
        build=lambda: Built(model, None, 100.0),
        preprocessing=Preprocessing(224, mean, std),
        embed_dim=512,
        card=None,
        folder=Path(),
        device=torch.device(device),
    )


def _measure(backbone: Backbone, count: int, side: int, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        images = _images(Path(scratch), count, side)
        measurements = {
            "decode": lambda: _decode(list(images.values()), backbone.preprocessing, options.workers),
            "forward": lambda: _forward(backbone, count, options),
            "total": lambda: _total(Path(scratch) / "features", backbone, images, options),
        }
        measurements["forward"]()  # allocations and code paths that the first pass pays for
        runs = [{name: run() for name, run in measurements.items()} for _ in range(options.repeats)]
    ratios, cpu_ratios = ([r["total"][i] / (r["decode"][i] + r["forward"][i]) for r in runs] for i in (0, 1))
    seconds = {f"{name}_s": round(statistics.median(r[name][0] for r in runs), 3) for name in measurements}
    settings = {"images": count, "side": side, "batch_size": options.batch_size, "workers": options.workers}
    result = {"ratio": statistics.median(ratios), "best": min(ratios), "cpu_ratio": statistics.median(cpu_ratios)}
    return settings | seconds | {key: round(value, 3) for key, value in result.items()}


def _images(folder: Path, count: int, side: int) -> dict[str, Path]:
    """Grey PNG files of smooth noise, by their SHA-256: they compress about as well as scans do."""
    rng = np.random.default_rng(0)
    images = {}
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
        noise = rng.integers(0, 16, (side, side), dtype=np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(np.asarray(coarse.resize((side, side))) // 2 + noise).save(path)
        images[sha256_file(path)] = path
    return images


def _decode(paths: list[Path], preprocessing: Preprocessing, processes: int) -> tuple[float, float]:
    """Seconds, and processor seconds, to decode and preprocess with this many processes that run already."""
    context = multiprocessing.get_context("fork")
    ready, cpu_seconds = context.Barrier(processes + 1), context.Queue()

    def work(worker_paths: list[Path]) -> None:
        ready.wait()
        cpu_start = time.process_time()
        for path in worker_paths:
            preprocessing.apply(decode(path.read_bytes()))
        cpu_seconds.put(time.process_time() - cpu_start)

    workers = [context.Process(target=work, args=(paths[i::processes],)) for i in range(processes)]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    cpu = sum(cpu_seconds.get() for _ in workers)
    elapsed = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return elapsed, cpu


def _forward(backbone: Backbone, count: int, options: argparse.Namespace) -> tuple[float, float]:
    size = backbone.preprocessing.size
    pixels = torch.randn(options.batch_size, 3, size, size, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(backbone.device)
    mixed = options.precision == "bfloat16" and computes_bfloat16(backbone.device)
    started, before = time.perf_counter(), time.process_time()
    with torch.inference_mode(), torch.autocast(backbone.device.type, torch.bfloat16, enabled=mixed):
        for start in range(0, count, options.batch_size):
            features = backbone.encode_images(pixels[: count - start])
    features.cpu()
    return time.perf_counter() - started, time.process_time() - before


def _total(path: Path, backbone: Backbone, images: dict[str, Path], options: argparse.Namespace) -> tuple[float, float]:
    for file in path.glob("*"):
        file.unlink()
    started, cpu_start = time.perf_counter(), _cpu()
    settings = {"batch_size": options.batch_size, "workers": options.workers, "precision": options.precision}
    update = update_store(path, backbone, images, intensity="auto", **settings)
    assert update.computed == len(images)
    return time.perf_counter() - started, _cpu() - cpu_start


def _cpu() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
