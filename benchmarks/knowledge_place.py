"""Where an experiment with banks of descriptions runs: its folder, dataset and protocol, and the components' calls."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy

from benchmarks.knowledge import ROOT
from benchmarks.knowledge_banks import Bank, as_many, poisoned, raw_bank, write_bank
from clinprompt.contract.exit_codes import ExitCode
from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.experiments.results import read_result
from clinprompt.files import sha256_bytes, to_json, write_text
from clinprompt.schema import read_yaml
from components.cache.__main__ import work as cache
from components.describe.__main__ import work as describe
from components.experiment.__main__ import work as experiment
from components.ingest.__main__ import work as ingest
from components.runner import Work, execute
from components.validate.__main__ import work as validate

BANKS = ("raw", "checked", "raw, as many", "poisoned", "poisoned, checked")
UNTAUGHT = "untaught"
_OF_STATES = "cilmp"  # reads hidden states of a bank, and untaught zeros; it has no teacher whose weight can be 0
WEIGHTS = {
    "biomedcoop": {"sccm_weight": 0.0, "kdsp_weight": 0.0},
    "biomed_dpt": {"l1_weight": 0.0, "kl_weight": 0.0},
}
METHODS = (*WEIGHTS, _OF_STATES)


@dataclass(frozen=True)
class Place:
    """The folder in which everything of a run lies, and what is run there.

    Attributes:
        edits: of params.yaml, by sections' keys.
    """

    out: Path
    dataset: str
    protocol: str
    edits: Mapping[str, Mapping[str, Any]]

    @property
    def params(self) -> Path:
        return self.out / "params.yaml"

    @property
    def manifest(self) -> Path:
        return self.out / "run/validate/manifest.parquet"

    @property
    def card_file(self) -> Path:
        return ROOT / "datasets" / f"{self.dataset}.yaml"

    @cached_property
    def card(self) -> Card:
        return load_card(self.card_file)

    @cached_property
    def results(self) -> str:
        """The name of the folders of results: other knobs of the training have another."""
        content = self._content()
        knobs = [content["protocols"][self.protocol], content["protocols"]["seeds"], content["training"]]
        return f"{self.protocol}-{sha256_bytes(to_json(knobs).encode())[:8]}"

    def call(self, name: str, work: Work, made: Path, card: Path | None = None, **paths: Path | str) -> ExitCode:
        """Run a component, unless `made` is there; its data rejected is an answer, all else that fails ends the run."""
        if made.exists():
            return ExitCode.OK
        options = {"dataset": self.dataset, "card": card or self.card_file, "params": self.params, **paths}
        argv = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        with redirect_stdout(sys.stderr):  # its line of JSON is no part of the tables
            code = ExitCode(execute(name, work, argv, ROOT / "components"))
        if code not in (ExitCode.OK, ExitCode.DATA_REJECTED):
            raise SystemExit(int(code))
        return code

    def prepare(self) -> pd.DataFrame:
        """Read the images, compute their features, and generate sentences; returns the table of `describe`."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.params, json.dumps(self._content()))  # JSON is YAML
        run, images = self.out / "run", {"images": self.out / "run/ingest/images"}
        raw = run / "ingest/manifest.parquet"
        self.call("ingest", ingest, raw, source=self.out / "data" / self.dataset, manifest=raw, **images)
        judged = {"accepted": self.manifest, "classes": run / "validate/classes.json"}
        self.call(
            "validate", validate, self.manifest, manifest=raw, evidence=run / "validate/evidence", **judged, **images
        )
        self.call("cache", cache, run / "features", manifest=self.manifest, features=run / "features", **images)
        return pd.read_parquet(self._described(self.out / "generated", "descriptions") / "descriptions.parquet")

    def banks(self, generated: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
        """The tables of `describe` for the banks of `count` sentences per class."""
        raw = raw_bank(generated, count)
        false = poisoned(raw, self.card)
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
            tables[name] = self._judged(self._folder(count, name), bank, checked=checked)
        return tables

    def learnt(self, method: str, count: int, bank: str) -> list[dict[str, Any]]:
        """The cells of a method that a bank has taught; none where a class has no description left."""
        untaught = bank == UNTAUGHT
        folder = self._folder(count, "raw" if untaught else bank)
        states = folder / "hidden_states.safetensors"
        if method == _OF_STATES:
            of_bank = self._described(folder / "states", "hidden_states", folder / self.card_file.name)
            states = self._zeros(of_bank / states.name) if untaught else of_bank / states.name
        name = f"{method}-{UNTAUGHT}" if untaught and method in WEIGHTS else method
        # Untaught, a method learns the same from all banks.
        result = (self.out / UNTAUGHT if untaught else folder) / self.results / f"{method}.json"
        self.call(
            "experiment",
            experiment,
            result,
            protocol=self.protocol,
            method=name,
            manifest=self.manifest,
            images=self.out / "run/ingest/images",
            features=self.out / "run/features",
            descriptions=folder / "descriptions.parquet",
            hidden_states=states,
            result=result,
        )
        cells: list[dict[str, Any]] = read_result(result)["cells"] if result.exists() else []
        return cells

    def _content(self) -> dict[str, Any]:
        """What stands in the run's params.yaml."""
        content: dict[str, Any] = read_yaml(ROOT / "params.yaml")
        content["knowledge"] |= {"min_accepted_per_class": 1, "states_of": "descriptions"}
        content["candidates"]["variants"] = {
            f"{method}-{UNTAUGHT}": {"method": method, **weights} for method, weights in WEIGHTS.items()
        }
        for key, values in self.edits.items():
            section = content
            for part in key.split("."):
                section = section[part]
            section |= values
        return content

    def _described(self, folder: Path, kind: str, card: Path | None = None) -> Path:
        """Run `describe` for a card and what is read of it; the folder, also where a class has too few sentences."""
        table, states = folder / "descriptions.parquet", folder / "hidden_states.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "settings.yaml"
        write_text(settings, f"knowledge: [{kind}]\n")
        self.call(
            "describe",
            describe,
            table,
            card,
            settings=settings,
            classes=self.out / "run/validate/classes.json",
            descriptions=table,
            hidden_states=states,
            samples=folder / "samples",
            report=folder / "report.json",
        )
        return folder

    def _judged(self, folder: Path, bank: Bank, *, checked: bool) -> pd.DataFrame:
        """Write a bank beside a card of its own, and run `describe` on it."""
        folder.mkdir(parents=True, exist_ok=True)
        card = folder / self.card_file.name
        write_bank(folder / "bank.csv", bank, self.card, checked=checked)
        write_text(card, json.dumps(read_yaml(self.card_file) | {"knowledge": {"descriptions": "bank.csv"}}))
        return pd.read_parquet(self._described(folder, "descriptions", card) / "descriptions.parquet")

    def _zeros(self, states: Path) -> Path:
        """Zeros in place of these hidden states."""
        path = self.out / UNTAUGHT / states.name
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = safetensors.numpy.load_file(states)
        path.write_bytes(safetensors.numpy.save({name: np.zeros_like(rows) for name, rows in tensors.items()}))
        return path

    def _folder(self, count: int, bank: str) -> Path:
        return self.out / f"banks-{count}" / bank.replace(", ", "-").replace(" ", "-")


def accepted(table: pd.DataFrame) -> Counter[str]:
    """The number of accepted sentences by class."""
    return Counter(table.loc[table["accepted"].astype(bool), "class"].astype(str))
