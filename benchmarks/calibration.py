"""How often prediction sets hold the true class: simulated, on drawn brains, and with the predictions of a run.

    python -m benchmarks.calibration
    python -m benchmarks.calibration --seeds 0 --predictions runs/*/evaluate/*/predictions.parquet

Each row gives what was found overall and in each class at a nominal coverage of 0.9, and in brackets the band of the
beta-binomial law. The probabilities of a predictions file were divided by the temperature that it names: that is undone
first, so that each row fits its own.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.special import softmax

from clinprompt.data.manifest import patients
from clinprompt.evaluation.calibrate import calibrate
from clinprompt.evaluation.calibration_record import Covered
from clinprompt.evaluation.contenders import Slices
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.metrics import measure
from clinprompt.evaluation.prediction_sets import fit_thresholds, in_sets
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.table import About, read_predictions, split_of
from clinprompt.evaluation.temperature import fit_temperature
from clinprompt.params import CalibrationParams

PARAMS = CalibrationParams(min_patients=20, coverage=0.9, abstention_error=0.1, abstention_confidence=0.9)
CLASSES = ("a", "b", "c", "d")


def simulated(repeats: int) -> Iterator[str]:
    """Mean coverage over calibration sets of so many patients per class, images of a patient being alike."""
    yield "| patients per class | images per patient | temperature fitted | coverage | mean size |"
    yield "| --- | --- | --- | --- | --- |"
    for per_class in (9, 18, 60):
        for images in (1, 4):
            for scaled in (False, True):
                rng = np.random.default_rng(per_class * 10 + images)
                found = np.array([_once(rng, per_class, images, scaled) for _ in range(repeats)])
                error = found[:, 0].std() / np.sqrt(repeats)
                yield (
                    f"| {per_class} | {images} | {'yes' if scaled else 'no'} | {found[:, 0].mean():.4f} ± {error:.4f} "
                    f"| {found[:, 1].mean():.2f} |"
                )


def _once(rng: np.random.Generator, per_class: int, images: int, scaled: bool) -> tuple[float, float]:
    val, test = _patients(rng, per_class, images), _patients(rng, 100, images)
    if scaled:
        t = fit_temperature(np.log(val.probabilities), val.labels, 4 * per_class, 20).value
        val, test = (
            Predictions(p.labels, softmax(np.log(p.probabilities) / t, axis=1), p.patients, CLASSES)
            for p in (val, test)
        )
    sets = in_sets(test.probabilities, fit_thresholds(val, 0.9).values or ())
    return float(sets[np.arange(len(test)), test.labels].mean()), float(sets.sum(axis=1).mean())


def _patients(rng: np.random.Generator, per_class: int, images: int) -> Predictions:
    who = np.repeat(np.arange(4 * per_class), images)
    labels = who % 4
    logits = 2 * (rng.normal(size=(4 * per_class, 4))[who] + 0.7 * rng.normal(size=(len(who), 4)))
    logits[np.arange(len(who)), labels] += 3.5
    return Predictions(labels, softmax(logits, axis=1), who.astype(str), CLASSES)


def told(name: str, val: Predictions, test: Predictions) -> str:
    """A line of the table."""
    logits = [np.log(np.maximum(split.probabilities, 1e-300)) for split in (val, test)]
    t = fit_temperature(logits[0], val.labels, len(set(val.patients)), PARAMS.min_patients).value
    scaled = [
        replace(split, probabilities=softmax(z / t, axis=1)) for split, z in zip((val, test), logits, strict=True)
    ]
    found = calibrate(scaled[0], scaled[1], Slices(), t, PARAMS, Intervals())
    sets, abstain = found.prediction_sets.test, found.abstention
    if sets is None:
        return f"| {name} | {found.prediction_sets.reason} |"
    whole = np.ones((1, len(test)))
    before, after = (measure(one.labels, one.probabilities, whole, 15).overall for one in (test, scaled[1]))
    told_abstain = f"{abstain.threshold:.2f}" if abstain.threshold is not None else "none"
    if abstain.test is not None:
        told_abstain += f": answers {abstain.test.answered.value:.2f}, error {abstain.test.error.value:.3f}"
    return (
        f"| {name} | {float(before['balanced_accuracy'][0]):.3f} | {t:.2f}: {float(before['ece'][0]):.3f} to "
        f"{float(after['ece'][0]):.3f} | {_covered(sets.overall)} | "
        f"{', '.join(_covered(one) for one in sets.per_class.values())} | {sets.overall.size:.2f} | {told_abstain} |"
    )


def _covered(one: Covered) -> str:
    low, high = one.band or (0.0, 0.0)
    return f"{one.coverage.value:.3f} ({low:.2f}-{high:.2f})"


def brains(patients: int, images: int, seed: int) -> tuple[Predictions, Predictions]:
    """Validation and test split of drawn brains, so many of each class: a logistic regression of this benchmark's own
    on the features of demo-clip. Unlike the candidate `linear_probe`, it chooses nothing on the validation split."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from clinprompt.backbones.load import load_backbone
    from clinprompt.data.codecs import decode
    from clinprompt.demo.phantom import write_phantom

    with tempfile.TemporaryDirectory() as scratch:
        folder, backbone, parts = Path(scratch) / "drawn", load_backbone("demo-clip"), []
        write_phantom(folder, patients=patients, images_per_patient=images, seed=seed)
        rows = pd.read_csv(folder / "manifest.csv")
        for start in range(0, len(rows), 64):
            files = [folder / path for path in rows["path"][start : start + 64]]
            pixels = [backbone.preprocessing.apply(decode(file.read_bytes())) for file in files]
            parts.append(backbone.encode_images(torch.from_numpy(np.stack(pixels))))
    features = torch.nn.functional.normalize(torch.cat(parts), dim=1).double().numpy()
    classes = tuple(sorted(rows["label"].unique()))
    labels = rows["label"].map(classes.index).to_numpy()
    train = np.asarray(rows["split"] == "train")
    head = LogisticRegression(C=100.0, max_iter=1000).fit(features[train], labels[train])
    p, owners = softmax(head.decision_function(features), axis=1), rows["patient"].to_numpy(dtype=str)
    val, test = (np.asarray(rows["split"] == split) for split in ("val", "test"))
    of_val, of_test = (Predictions(labels[mask], p[mask], owners[mask], classes) for mask in (val, test))
    return of_val, of_test


def unscaled(frame: pd.DataFrame, about: About) -> tuple[pd.DataFrame, About]:
    """Predictions as the model gave them, before the temperature; of a probability that is 0 no more is known."""
    columns = [name for name in frame if str(name).startswith("p_")]
    logits = about.temperature * np.log(np.maximum(frame[columns].to_numpy(np.float64), 1e-300))
    plain = dict(zip(columns, softmax(logits, axis=1).T, strict=True))
    return frame.assign(**plain), replace(about, temperature=1.0)


def predicted(path: Path) -> Iterator[str]:
    """A candidate's predictions, and the same images with validation and test split mixed anew."""
    classes = tuple(name[2:] for name in pq.read_schema(path).names if name.startswith("p_"))
    frame, about = unscaled(*read_predictions(path, classes))
    name = f"{about.dataset}, {about.id}"
    yield told(name, *(split_of(frame, split, classes) for split in ("val", "test")))
    owners = patients(frame)
    test_share = (frame["split"] == "test").mean()
    chosen = np.random.default_rng(0).random(owners.nunique()) < test_share
    split = np.where(chosen[owners.astype("category").cat.codes], "test", "val")
    mixed = frame.assign(split=split)
    yield told(f"{name}, mixed anew", *(split_of(mixed, split, classes) for split in ("val", "test")))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", type=int, default=400, help="simulated calibration sets")
    parser.add_argument("--seeds", type=int, default=3, help="sets of drawn brains")
    parser.add_argument("--predictions", type=Path, nargs="*", default=[], help="files that evaluate wrote")
    arguments = parser.parse_args()
    print("\n".join(simulated(arguments.of)), flush=True)
    print("\n| images | balanced accuracy | temperature | all | each class | mean size | abstains below |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for seed in range(arguments.seeds):
        print(
            told(f"brain-phantom, 120 patients per class, 1 image each, seed {seed}", *brains(120, 1, seed)), flush=True
        )
    for path in arguments.predictions:
        print("\n".join(predicted(path)), flush=True)


if __name__ == "__main__":
    main()
