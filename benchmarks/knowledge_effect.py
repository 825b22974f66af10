"""What do the checks of descriptions do to what is learnt: raw, checked and poisoned banks on brain-phantom.

    python -m benchmarks.knowledge_effect --out FOLDER [--counts 10 30] [--methods biomedcoop biomed_dpt]

The default language model says `--per-aspect` sentences per aspect and class. Banks of them are written as files of
reviewed descriptions and run through `describe`: raw ones overrule the checks, checked ones don't. `raw, as many` draws
as many raw sentences as survive the checks. In poisoned banks 30 % are replaced by planted false ones. Each bank
teaches each method under `base_to_novel`; `untaught` has both teacher weights 0. What is in FOLDER is not made again.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd

from benchmarks.knowledge import ROOT, shown
from benchmarks.knowledge_banks import KINDS, PLANTED, Bank, as_many, poisoned, raw_bank, write_bank
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.experiments.paired import compare, render
from clinprompt.experiments.protocols import halves
from clinprompt.experiments.results import read_result
from clinprompt.files import write_text
from clinprompt.schema import read_yaml
from components.cache.__main__ import work as cache
from components.describe.__main__ import work as describe
from components.experiment.__main__ import work as experiment
from components.ingest.__main__ import work as ingest
from components.runner import Work, execute
from components.validate.__main__ import work as validate

DATASET, PROTOCOL = "brain-phantom", "base_to_novel"
CARD = ROOT / "datasets" / f"{DATASET}.yaml"
UNTAUGHT = {
    "biomedcoop": {"sccm_weight": 0.0, "kdsp_weight": 0.0},
    "biomed_dpt": {"l1_weight": 0.0, "kl_weight": 0.0},
}
BANKS = ("raw", "checked", "raw, as many", "poisoned", "poisoned, checked")
# What is compared with what, by the paired test.
QUESTIONS = {
    "checked": ("raw", "raw, as many", "untaught"),
    "poisoned": ("raw", "poisoned, checked"),
}


@dataclass(frozen=True)
class Place:
    """The folder in which everything of a run lies, and how many seeds it trains with."""

    out: Path
    seeds: int

    @property
    def params(self) -> Path:
        return self.out / "params.yaml"

    @property
    def manifest(self) -> Path:
        return self.out / "run/validate/manifest.parquet"

    def call(self, name: str, work: Work, made: Path, card: Path = CARD, **paths: Path | str) -> ExitCode:
        """Run a component, unless `made` is there; its data rejected is an answer, all else that fails ends the run."""
        if made.exists():
            return ExitCode.OK
        options = {"dataset": DATASET, "card": card, "params": self.params, **paths}
        argv = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        with redirect_stdout(sys.stderr):  # its line of JSON is no part of the tables
            code = ExitCode(execute(name, work, argv, ROOT / "components"))
        if code not in (ExitCode.OK, ExitCode.DATA_REJECTED):
            raise SystemExit(int(code))
        return code

    def prepare(self, per_aspect: int) -> pd.DataFrame:
        """Draw the images, compute their features, and generate sentences; returns the table of `describe`."""
        content = read_yaml(ROOT / "params.yaml")
        content["knowledge"] |= {"descriptions_per_aspect": per_aspect, "min_accepted_per_class": 1}
        content["candidates"]["variants"] = {
            f"{method}-untaught": {"method": method, **weights} for method, weights in UNTAUGHT.items()
        }
        content["protocols"]["seeds"] = list(range(1, self.seeds + 1))
        write_text(self.params, json.dumps(content))  # JSON is YAML
        write_text(self.out / "needed.yaml", "knowledge: [descriptions]\n")
        run, images = self.out / "run", {"images": self.out / "run/ingest/images"}
        raw = run / "ingest/manifest.parquet"
        self.call("ingest", ingest, raw, source=self.out / "data" / DATASET, manifest=raw, **images)
        judged = {"accepted": self.manifest, "classes": run / "validate/classes.json"}
        self.call(
            "validate", validate, self.manifest, manifest=raw, evidence=run / "validate/evidence", **judged, **images
        )
        self.call("cache", cache, run / "features", manifest=self.manifest, features=run / "features", **images)
        return self.described(self.out / "generated", CARD)

    def described(self, folder: Path, card: Path) -> pd.DataFrame:
        """Run `describe` for a card; returns its table, also where a class has too few accepted sentences."""
        table = folder / "descriptions.parquet"
        self.call(
            "describe",
            describe,
            table,
            card,
            settings=self.out / "needed.yaml",
            classes=self.out / "run/validate/classes.json",
            descriptions=table,
            hidden_states=folder / "hidden_states.safetensors",
            samples=folder / "samples",
            report=folder / "report.json",
        )
        return pd.read_parquet(table)

    def judged(self, folder: Path, bank: Bank, *, checked: bool) -> pd.DataFrame:
        """Write a bank beside a card of its own, and run `describe` on it."""
        folder.mkdir(parents=True, exist_ok=True)
        card = folder / CARD.name
        write_bank(folder / "bank.csv", bank, load_card(CARD), checked=checked)
        write_text(card, json.dumps(read_yaml(CARD) | {"knowledge": {"descriptions": "bank.csv"}}))
        return self.described(folder, card)

    def banks(self, generated: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
        """The tables of `describe` for the banks of `count` sentences per class."""
        raw, folder = raw_bank(generated, count), self.out / f"banks-{count}"
        false = poisoned(raw, load_card(CARD))
        made: dict[str, Callable[[], tuple[Bank, bool]]] = {
            "raw": lambda: (raw, False),
            "checked": lambda: (raw, True),
            "raw, as many": lambda: (as_many(raw, accepted(tables["checked"])), False),
            "poisoned": lambda: (false, False),
            "poisoned, checked": lambda: (false, True),
        }
        tables: dict[str, pd.DataFrame] = {}
        for name in BANKS:
            bank, checked = made[name]()
            tables[name] = self.judged(folder / _path(name), bank, checked=checked)
        return tables

    def learnt(self, method: str, count: int, bank: str) -> list[dict[str, Any]]:
        """The cells of a method that a bank has taught."""
        folder = self.out / f"banks-{count}" / ("raw" if bank == "untaught" else _path(bank))
        name = f"{method}-untaught" if bank == "untaught" else method
        result = (self.out if bank == "untaught" else folder) / f"{PROTOCOL}-{self.seeds}-seeds" / f"{name}.json"
        self.call(
            "experiment",
            experiment,
            result,
            protocol=PROTOCOL,
            method=name,
            manifest=self.manifest,
            images=self.out / "run/ingest/images",
            features=self.out / "run/features",
            descriptions=folder / "descriptions.parquet",
            hidden_states=folder / "hidden_states.safetensors",
            result=result,
        )
        cells: list[dict[str, Any]] = read_result(result)["cells"] if result.exists() else []
        return cells


def _path(bank: str) -> str:
    return bank.replace(", ", "-").replace(" ", "-")


def accepted(table: pd.DataFrame) -> Counter[str]:
    """The number of accepted sentences by class."""
    return Counter(table.loc[table["accepted"].astype(bool), "class"].astype(str))


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


def score_line(method: str, count: int, bank: str, cells: Sequence[Mapping[str, Any]]) -> str:
    """A row of the results' table: balanced accuracies in per cent, mean ± deviation over the seeds."""
    numbers = []
    for part in ("base", "novel", "harmonic_mean"):
        values = [100 * cell[part]["balanced_accuracy"] for cell in cells if "left_out" not in cell]
        numbers.append(f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else "–")
    return f"| `{method}` | {count} | {bank} | {' | '.join(numbers)} |"


def comparisons(place: Place, method: str, count: int, learnt: Mapping[str, list[dict[str, Any]]]) -> str:
    """The paired test's tables, for base and novel classes; p is Holm's within each."""
    test = read_manifest(place.manifest)
    test = test[test["split"] == "test"]
    parts = []
    for part, classes in zip(("base", "novel"), halves(tuple(load_card(CARD).class_ids)), strict=True):
        rows = test[test["label"].isin(classes)]
        for first, others in QUESTIONS.items():
            there = [other for other in others if learnt[other]]
            if learnt[first] and there:
                compared = compare(learnt, rows, list(classes), first, there, part)
                facts = {"method": method, "count": f"{count} sentences per class", "test": f"{part} classes"}
                parts.append(render(compared, facts))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 30, 50], help="sentences per class")
    parser.add_argument("--methods", nargs="+", choices=sorted(UNTAUGHT), default=list(UNTAUGHT))
    parser.add_argument("--per-aspect", type=int, default=13, help="samples of the language model, of 4 aspects")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    place = Place(options.out.resolve(), options.seeds)
    place.out.mkdir(parents=True, exist_ok=True)
    generated = place.prepare(options.per_aspect)
    lines = ["| N | bank | accepted | rejected | accepted by class | planted ones rejected |", "| --- " * 6 + "|"]
    for count in options.counts:
        lines += [bank_line(count, name, table) for name, table in place.banks(generated, count).items()]
    print("\n".join(lines), flush=True)
    for method in options.methods:
        for count in options.counts:
            learnt = {bank: place.learnt(method, count, bank) for bank in (*BANKS, "untaught")}
            lines = ["", "| method | N | bank | base | novel | harmonic mean |", "| --- " * 6 + "|"]
            lines += [score_line(method, count, bank, cells) for bank, cells in learnt.items()]
            print("\n".join([*lines, "", comparisons(place, method, count, learnt)]), flush=True)


if __name__ == "__main__":
    main()
