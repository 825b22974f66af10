"""From which cosine on do two sentences say the same? And how often do the rules tell opposite ones?

    python -m benchmarks.knowledge_pairs [--encoder NAME]

The pairs are those of knowledge_pairs.yaml. Half of them, by the digest of their text, choose the threshold: the one
with the best balanced accuracy that calls at most one in twenty different pairs the same, in steps of a hundredth. The
numbers to report are of the other half.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.knowledge import shown
from clinprompt.files import sha256_bytes
from clinprompt.knowledge.agreement.assertions import assertions
from clinprompt.knowledge.agreement.consensus import opposed
from clinprompt.knowledge.agreement.encoder import load_encoder, not_fetched
from clinprompt.schema import read_yaml

PAIRS = Path(__file__).with_name("knowledge_pairs.yaml")
MOST_WRONG = 0.05


def chosen(same: np.ndarray, other: np.ndarray) -> float:
    """The threshold of the best balanced accuracy among those that call at most `MOST_WRONG` of `other` the same.

    Args:
        same, other: the cosines of the pairs that say the same, and of those that don't.
    """
    steps = np.arange(50, 100) / 100
    allowed = [t for t in steps if (other >= t).mean() <= MOST_WRONG]
    return float(max(allowed, key=lambda t: ((same >= t).mean() - (other >= t).mean(), -t)))


def words(text: str) -> set[str]:
    return {word.strip(".,").lower() for word in text.split()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="all-minilm-l6-v2")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    if encoder is None:
        raise SystemExit(not_fetched(options.encoder))
    pairs = read_yaml(PAIRS)
    cosines: dict[str, dict[str, list[float]]] = {"tuning": {}, "held_out": {}}
    jaccard: list[bool] = []
    for kind in ("same", "other"):
        for first, second in pairs[kind]:
            half = ("tuning", "held_out")[int(sha256_bytes(f"{first}\n{second}".encode())[0], 16) % 2]
            a, b = encoder.encode([first, second])
            cosines[half].setdefault(kind, []).append(float(a @ b))
            if kind == "same" and half == "held_out":
                jaccard.append(len(words(first) & words(second)) / len(words(first) | words(second)) > 0.8)
    tuning = {kind: np.array(values) for kind, values in cosines["tuning"].items()}
    held = {kind: np.array(values) for kind, values in cosines["held_out"].items()}
    threshold = chosen(tuning["same"], tuning["other"])
    print(f"chosen on {sum(map(len, tuning.values()))} pairs: {threshold}; the table has {encoder.same}")
    for name, values in (("tuning", tuning), ("held_out", held)):
        for kind in ("same", "other"):
            found = int((values[kind] >= encoder.same).sum())
            print(
                f"{name}: {kind}: called the same {shown(found, len(values[kind]))}; cosines "
                f"{values[kind].min():.2f} to {values[kind].max():.2f}, median {np.median(values[kind]):.2f}"
            )
    print(f"held_out: same: found by shared words alone {shown(sum(jaccard), len(jaccard))}")
    opposite = [encoder.encode(pair) for pair in pairs["opposite"]]
    near = [float(a @ b) for a, b in opposite]
    told = sum(opposed(*map(assertions, pair)) for pair in pairs["opposite"])
    print(f"opposite: cosines {min(near):.2f} to {max(near):.2f}; told by the rules {shown(told, len(near))}")
    wrong = sum(opposed(assertions(a), assertions(b)) for kind in ("same", "other") for a, b in pairs[kind])
    print(f"same and other: taken for opposite {shown(wrong, len(pairs['same']) + len(pairs['other']))}")


if __name__ == "__main__":
    main()
