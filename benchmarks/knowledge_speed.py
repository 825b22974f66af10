"""How long do 10,000 descriptions take to check: rules, near-duplicates, agreement, grounding?

    python -m benchmarks.knowledge_speed [--sentences 10000] [--threads 2]

The sentences are put together from parts, for the classes of brain-tumor-mri; the images are random features.
"""

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.knowledge import ROOT
from clinprompt.backbones.load import load_backbone
from clinprompt.data.load import load_card
from clinprompt.data.manifest import write_manifest
from clinprompt.features.store import write_store
from clinprompt.knowledge.agreement.encoder import load_encoder, not_fetched
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.images.cached import CachedSpace
from clinprompt.knowledge.images.grounding import ground
from clinprompt.knowledge.settle import Sample, settle
from clinprompt.knowledge.statement import Context
from clinprompt.knowledge.texts import statement_of

WHERE = (
    "On T2-weighted images",
    "On T1-weighted images",
    "On FLAIR images",
    "After gadolinium",
    "On axial slices",
    "In most patients",
    "On coronal images",
    "In typical cases",
    "On diffusion-weighted images",
    "At first sight",
)
LOOKS = (
    "shows irregular borders",
    "is round with smooth borders",
    "enhances strongly and evenly",
    "holds dark necrosis",
    "is surrounded by bright oedema",
    "lies near the midline of the brain",
    "pushes the ventricles aside",
    "has a thin bright rim",
    "contains small calcified spots",
    "extends along the white matter",
)
FURTHER = (
    "and its outline is hard to see",
    "and the sulci beside it are effaced",
    "while the other hemisphere is spared",
    "and vessels run around its edge",
    "with several small cysts at its margin",
    "and the skull above it is thick",
    "as the tissue around it swells",
    "and old blood lies in its centre",
    "with a shift of the midline",
    "and it grows slowly over years",
    "with mass effect on the brainstem",
    "and its signal is mixed",
)
SIZES = ("small", "large", "lobulated", "solid", "single", "typical")


def sentences(count: int) -> Iterator[tuple[str, str]]:
    """Class ids and texts, in the order of one seed."""
    card = load_card(ROOT / "datasets" / "brain-tumor-mri.yaml")
    made = [
        (info.id, f"{where} a {size} {info.name} {looks} {further}.")
        for info, where, size, looks, further in itertools.product(card.classes, WHERE, SIZES, LOOKS, FURTHER)
    ]
    random.Random(0).shuffle(made)  # noqa: S311
    yield from made[:count]


def write_images(folder: Path) -> None:
    """A run's features and manifest with 500 random training images of each class."""
    card, backbone = load_card(ROOT / "datasets" / "brain-tumor-mri.yaml"), load_backbone("demo-clip")
    labels = [label for label in card.class_ids for _ in range(500)]
    frame = pd.DataFrame({"id": [f"{i:064x}" for i in range(len(labels))], "label": labels, "split": "train"})
    frame = frame.assign(path=frame["id"] + ".png", file=frame["id"] + ".png", modality="MRI")
    for column in ("patient", "site", "sex", "age"):
        frame[column] = None
    features = np.random.default_rng(0).normal(size=(len(labels), backbone.embed_dim)).astype(np.float32)
    identity = {"backbone": {"name": backbone.name, "digest": backbone.digest}}
    write_store(folder / "features", identity, frame["id"].tolist(), features)
    (folder / "validate").mkdir()
    write_manifest(frame, folder / "validate" / "manifest.parquet")


def _clocks() -> tuple[float, float]:
    """Wall time and the processors' time, in seconds: beside other work the two are not alike."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    card = load_card(ROOT / "datasets" / "brain-tumor-mri.yaml")
    encoder = load_encoder("all-minilm-l6-v2")
    if encoder is None:
        raise SystemExit(not_fetched("all-minilm-l6-v2"))
    given = list(sentences(options.sentences))
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch))
        space = CachedSpace.open(Path(scratch) / "features")
        context = Context.of(card)
        began = _clocks()
        samples = [Sample(c, text, judge(statement_of(c, text), context)) for c, text in given]
        ruled = _clocks()
        passed = sum(sample.verdict.accepted for sample in samples)
        verdicts = settle(samples, 1, encoder)
        settled = _clocks()
        judged = [Sample(s.class_id, s.text, v) for s, v in zip(samples, verdicts, strict=True)]
        ground(judged, card.class_ids, space, reject=False)
        done = _clocks()
    print(f"{len(given)} sentences, {passed} after the rules, {sum(v.accepted for v in verdicts)} in the end")
    steps = {"rules": (began, ruled), "near-duplicates and agreement": (ruled, settled), "grounding": (settled, done)}
    for name, (start, stop) in (steps | {"all": (began, done)}).items():
        wall, cpu = (b - a for a, b in zip(start, stop, strict=True))
        print(f"{name}: {wall:.1f} s, {cpu:.1f} s of processors, on {options.threads} threads")


if __name__ == "__main__":
    main()
