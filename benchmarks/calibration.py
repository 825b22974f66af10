"""How often prediction sets hold the true class: simulated, on drawn brains, and on real images.

    python -m benchmarks.calibration                         # simulated patients, and drawn brains
    python -m benchmarks.calibration --real FOLDER           # and FOLDER/Training, FOLDER/Testing with a folder per class

On images the model is a linear head on the features of demo-clip, fitted on the training split. Each row gives the
nominal coverage, what was found overall and in each class, and in brackets the band of the beta-binomial law.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from clinprompt.evaluation.calibrate import calibrate
from clinprompt.evaluation.calibration_record import Covered
from clinprompt.evaluation.contenders import Slices
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.metrics import measure
from clinprompt.evaluation.prediction_sets import fit_thresholds, in_sets
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.temperature import fit_temperature
from clinprompt.params import CalibrationParams

PARAMS = CalibrationParams(min_patients=20, coverage=0.9, abstention_error=0.1, abstention_confidence=0.9)
CLASSES = ("a", "b", "c", "d")


def simulated(repeats: int) -> Iterator[str]:
    """Mean coverage over calibration sets of so many patients per class, images of a patient being alike."""
    yield "| patients per class | images per patient | temperature fitted | coverage | mean size |"
    yield "| --- | --- | --- | --- | --- |"
    for patients in (9, 18, 60):
        for images in (1, 4):
            for scaled in (False, True):
                rng = np.random.default_rng(patients * 10 + images)
                found = np.array([_once(rng, patients, images, scaled) for _ in range(repeats)])
                error = found[:, 0].std() / np.sqrt(repeats)
                yield (
                    f"| {patients} | {images} | {'yes' if scaled else 'no'} | {found[:, 0].mean():.4f} ± {error:.4f} "
                    f"| {found[:, 1].mean():.2f} |"
                )


def _once(rng: np.random.Generator, patients: int, images: int, scaled: bool) -> tuple[float, float]:
    val, test = _patients(rng, patients, images), _patients(rng, 100, images)
    if scaled:
        t = fit_temperature(np.log(val.probabilities), val.labels, 4 * patients, 20).value
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


def told(name: str, rows: pd.DataFrame, features: np.ndarray) -> str:
    """A line of the table for images with label, split and patient."""
    from sklearn.linear_model import LogisticRegression

    classes = tuple(sorted(rows["label"].unique()))
    labels = rows["label"].map(classes.index).to_numpy()
    train, val, test = (np.asarray(rows["split"] == split) for split in ("train", "val", "test"))
    head = LogisticRegression(C=100.0, max_iter=1000).fit(features[train], labels[train])
    logits, patients = head.decision_function(features), rows["patient"].to_numpy(dtype=str)
    t = fit_temperature(logits[val], labels[val], len(set(patients[val])), PARAMS.min_patients).value
    parts = [Predictions(labels[m], softmax(logits[m] / t, axis=1), patients[m], classes) for m in (val, test)]
    found = calibrate(parts[0], parts[1], Slices(), t, PARAMS, Intervals())
    sets, abstain = found.prediction_sets.test, found.abstention
    if sets is None:
        return f"| {name} | {found.prediction_sets.reason} |"
    ece = [
        measure(labels[test], softmax(logits[test] / d, axis=1), np.ones((1, test.sum())), 15).overall for d in (1.0, t)
    ]
    told_abstain = f"{abstain.threshold:g}" if abstain.threshold is not None else "none"
    if abstain.test is not None:
        told_abstain += f", answers {abstain.test.answered.value:.2f}, error {abstain.test.error.value:.3f}"
    return (
        f"| {name} | {float(ece[0]['balanced_accuracy'][0]):.3f} | {t:.2f}: ECE {float(ece[0]['ece'][0]):.3f} to "
        f"{float(ece[1]['ece'][0]):.3f} | {_covered(sets.overall)} | "
        f"{'; '.join(_covered(one) for one in sets.per_class.values())} | {sets.overall.size:.2f} | {told_abstain} |"
    )


def _covered(one: Covered) -> str:
    low, high = one.band or (0.0, 0.0)
    return f"{one.coverage.value:.3f} ({low:.2f}-{high:.2f})"


def features_of(files: list[Path]) -> np.ndarray:
    """Unit features [n, e] of demo-clip."""
    import torch

    from clinprompt.backbones.load import load_backbone
    from clinprompt.data.codecs import decode

    backbone, parts = load_backbone("demo-clip"), []
    for start in range(0, len(files), 64):
        pixels = [backbone.preprocessing.apply(decode(file.read_bytes())) for file in files[start : start + 64]]
        parts.append(backbone.encode_images(torch.from_numpy(np.stack(pixels))))
    features: np.ndarray = torch.nn.functional.normalize(torch.cat(parts), dim=1).double().numpy()
    return features


def drawn(patients: int, images: int, seed: int) -> str:
    """Drawn brains, so many of each class."""
    from clinprompt.demo.phantom import write_phantom

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "drawn"
        write_phantom(folder, patients=patients, images_per_patient=images, seed=seed)
        rows = pd.read_csv(folder / "manifest.csv")
        return told(
            f"brain-phantom, {patients} patients per class, {images} images each, seed {seed}",
            rows,
            features_of([folder / path for path in rows["path"]]),
        )


def real(folder: Path) -> Iterator[str]:
    """A folder as it is published, and the same images split anew at random."""
    files = sorted(file for file in folder.glob("T*ing/*/*") if file.is_file())
    rng, names = np.random.default_rng(0), [str(file.relative_to(folder)) for file in files]
    rows = pd.DataFrame({"label": [file.parent.name for file in files], "patient": names})
    rows["split"] = ["test" if file.parts[-3] == "Testing" else "train" for file in files]
    chance = rng.random(len(rows))
    features = features_of(files)
    val = (rows["split"] == "train") & (chance < 0.15)
    yield told(
        f"{folder.name}: Training and Testing as published", rows.assign(split=rows["split"].mask(val, "val")), features
    )
    anew = np.select([chance < 0.15, chance < 0.3], ["val", "test"], "train")
    yield told(f"{folder.name}: the same images, split at random", rows.assign(split=anew), features)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", type=int, default=400, help="simulated calibration sets")
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    print("\n".join(simulated(arguments.of)), flush=True)
    print("\n| images | balanced accuracy | temperature | all | each class | mean size | abstains below |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for seed in (0, 1, 2):
        print(drawn(120, 1, seed), flush=True)
    print(drawn(60, 4, 0), flush=True)
    if arguments.real:
        for line in real(arguments.real):
            print(line, flush=True)


if __name__ == "__main__":
    main()
