"""What do the checks of descriptions do to what is learnt: raw, checked and poisoned banks.

    python -m benchmarks.knowledge_effect --out FOLDER [--counts 10 30 50] [--methods biomedcoop biomed_dpt cilmp]
    python -m benchmarks.knowledge_effect --out ANOTHER --dataset brain-tumor-mri --backbone open-towers
        --precision bfloat16 --protocol few_shot --budget '{"steps": 300, "batch_size": 16, "rates": [0.2, 1, 5]}'

The default language model says `--per-aspect` sentences per aspect and class. Banks of them are written as files of
reviewed descriptions and run through `describe`: raw ones overrule the checks, checked ones don't. `raw, as many` draws
as many raw sentences as survive the checks. In poisoned banks 30 % are replaced by planted false ones. Each bank
teaches each method; cilmp reads the states of the language model that reads the bank (`states_of: descriptions`).
`untaught` has both teacher weights 0, and for cilmp zeros for states. What is in FOLDER is not made again; a dataset or
a backbone needs a folder of its own.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd

from benchmarks.knowledge import shown
from benchmarks.knowledge_banks import KINDS, PLANTED
from benchmarks.knowledge_place import BANKS, METHODS, UNTAUGHT, Place, accepted
from clinprompt.data.manifest import read_manifest
from clinprompt.experiments.paired import Comparison, compare
from clinprompt.experiments.protocols import halves

PROTOCOLS = {"base_to_novel": ("base", "novel", "harmonic_mean"), "few_shot": ("test",)}  # and their tests
# What is compared with what, by the paired test.
QUESTIONS = {
    "checked": ("raw", "raw, as many", UNTAUGHT),
    "poisoned": ("raw", "poisoned, checked"),
}


def bank_line(count: int, name: str, table: pd.DataFrame) -> str:
    """A row of the banks' table: what was accepted, by class and in all, and the planted ones that were rejected."""
    by_class, is_accepted = accepted(table), table["accepted"].astype(bool)
    caught = []
    for kind in KINDS:
        of_kind = is_accepted[table["aspect"] == PLANTED + kind]
        if len(of_kind) and name.endswith("checked"):
            caught.append(f"{kind} {shown(int((~of_kind).sum()), len(of_kind))}")
    counts = " / ".join(str(by_class[label]) for label in dict.fromkeys(table["class"]))
    return f"| {count} | {name} | {sum(by_class.values())} | {(~is_accepted).sum()} | {counts} | {'; '.join(caught)} |"


def score_line(method: str, count: int, bank: str, cells: Sequence[Mapping[str, Any]], tests: Sequence[str]) -> str:
    """A row of the results' table: balanced accuracies in per cent, mean ± deviation over the seeds."""
    numbers = []
    for part in tests:
        values = [100 * cell[part]["balanced_accuracy"] for cell in cells if "left_out" not in cell]
        numbers.append(f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else "–")
    return f"| `{method}` | {count} | {bank} | {' | '.join(numbers)} |"


def paired_lines(place: Place, method: str, count: int, learnt: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Rows of the paired test's table: differences on each test's classes; p is Holm's within each and first bank."""
    images, ids = read_manifest(place.manifest), tuple(place.card.class_ids)
    images = images[images["split"] == "test"]
    parts = {"test": ids} if place.protocol == "few_shot" else dict(zip(("base", "novel"), halves(ids), strict=True))
    lines = []
    for first, others in QUESTIONS.items():
        there = [other for other in others if learnt[first] and learnt[other]]
        rows: dict[str, list[str]] = {other: [] for other in there}
        for part, classes in parts.items() if there else ():
            tested = images[images["label"].isin(classes)]
            for one in compare(learnt, tested, list(classes), first, there, part):
                rows[one.second].append(_difference(one))
        lines += [
            f"| `{method}`: {first} against {other} | {count} | {' | '.join(told)} |" for other, told in rows.items()
        ]
    return lines


def _difference(one: Comparison) -> str:
    if one.alike:
        return "the same answers"
    p = "< 0.001" if one.adjusted < 0.001 else f"{one.adjusted:.{3 if one.adjusted < 0.095 else 2}f}"
    points = [f"{round(100 * value, 1) + 0.0:+.1f}" for value in (one.difference, one.low, one.high)]  # no "-0.0"
    return f"{points[0]} [{points[1]}, {points[2]}], p {p}"


def place_of(options: argparse.Namespace) -> Place:
    """The place that the options describe."""
    few = options.protocol == "few_shot"
    edits: dict[str, dict[str, Any]] = {
        "knowledge": {"descriptions_per_aspect": options.per_aspect},
        "backbone": {"name": options.backbone},
        "cache": {"precision": options.precision},
        "training": {"precision": options.precision},
        "protocols": {"seeds": list(range(1, options.seeds + 1))},
        f"protocols.{options.protocol}": {
            "shots": [options.shots] if few else options.shots,
            "budget": options.budget,
        },
    }
    return Place(options.out.resolve(), options.dataset, options.protocol, edits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--dataset", choices=["brain-phantom", "brain-tumor-mri"], default="brain-phantom")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="base_to_novel")
    parser.add_argument("--shots", type=int, default=16, help="images per class")
    parser.add_argument(
        "--budget", type=json.loads, metavar="JSON", help="of every method; by default its own schedule"
    )
    parser.add_argument("--backbone", default="demo-clip")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 30, 50], help="sentences per class")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--per-aspect", type=int, default=13, help="samples of the language model, of 4 aspects")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    place, tests = place_of(options), PROTOCOLS[options.protocol]
    generated = place.prepare()
    lines = ["| N | bank | accepted | rejected | accepted by class | planted ones rejected |", "| --- " * 6 + "|"]
    for count in options.counts:
        lines += [bank_line(count, name, table) for name, table in place.banks(generated, count).items()]
    print("\n".join(lines), flush=True)
    parts = [test.replace("_", " ") for test in tests]
    for method in options.methods:
        for count in options.counts:
            learnt = {bank: place.learnt(method, count, bank) for bank in (*BANKS, UNTAUGHT)}
            scores = [score_line(method, count, bank, cells, tests) for bank, cells in learnt.items()]
            paired = paired_lines(place, method, count, learnt)
            lines = [*_head("method", "N", "bank", *parts), *scores, *_head("", "N", *parts[:2]), *paired]
            print("\n".join(lines), flush=True)


def _head(*columns: str) -> list[str]:
    return ["", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]


if __name__ == "__main__":
    main()
