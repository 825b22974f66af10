"""`decision.json`: the gate's record, and whether the one on disk still holds.

Imports nothing heavy: on most runs the gate only finds that there is nothing to do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import read_json, sha256_file
from clinprompt.tuned.artifact import model_digest

if TYPE_CHECKING:
    from clinprompt.evaluation.candidates import Listed
    from clinprompt.evaluation.gate import Check, Decision
    from clinprompt.evaluation.intervals import Estimate

FORMAT = 2


@dataclass(frozen=True)
class ChampionRef:
    """Which registry version a decision was made against."""

    name: str
    version: str
    model_digest: str

    def to_json(self) -> dict[str, str]:
        """As it stands in the record."""
        return {"name": self.name, "version": self.version, "model_digest": self.model_digest}


def input_digests(card: Path, manifest: Path, models: Path, evaluations: Path, names: Iterable[str]) -> dict[str, Any]:
    """SHA-256 of all that a decision rests on; null for what a listed candidate lacks."""
    digests: dict[str, Any] = {"card": sha256_file(card), "manifest": sha256_file(manifest)}
    digests["models"] = {name: _model(models / name) for name in names}
    digests["predictions"] = {name: _file(evaluations / name / "predictions.parquet") for name in names}
    return digests


def read_decision(path: Path) -> dict[str, Any] | None:
    """The record on disk; None when there is none or it is not readable, as a new one is made then."""
    try:
        record = read_json(path)
    except (InputMissing, InputCorrupt):
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def still_holds(
    record: dict[str, Any], inputs: dict[str, Any], params: dict[str, Any], champion: ChampionRef | None
) -> bool:
    """Whether a record needs no new decision: same inputs and params, and either its chosen candidate is the champion
    by now, or it rejected all against the champion that still stands."""
    if champion is None or record.get("inputs") != inputs or record.get("params") != params:
        return False
    if record.get("verdict") == "accepted":
        return (record.get("chosen") or {}).get("model_digest") == champion.model_digest
    return record.get("champion") == champion.to_json()


def to_record(
    decision: "Decision",
    *,
    dataset: str,
    candidates: "list[Listed]",
    champion: ChampionRef | None,
    params: dict[str, Any],
    inputs: dict[str, Any],
) -> dict[str, Any]:
    """The whole record; `candidates` in the params' order."""
    chosen = decision.chosen
    methods = {listed.id: listed.method for listed in candidates}
    return {
        "format": FORMAT,
        "dataset": dataset,
        "verdict": "accepted" if decision.accepted else "rejected",
        "reasons": decision.reasons,
        "chosen": chosen
        and {
            "candidate": chosen.id.name,
            "method": methods[chosen.id],
            "seed": chosen.id.seed,
            "folder": chosen.name,
            "model_digest": chosen.model_digest,
        },
        "checks": [_check(check) for check in decision.checks],
        "champion": champion and champion.to_json(),
        "candidates": [
            {
                "candidate": listed.id.name,
                "method": listed.method,
                "seed": listed.id.seed,
                "model_digest": listed.model_digest,
                "val": _estimates(decision.val.get(str(listed.id))),
                "test": _estimates(decision.test.get(str(listed.id))),
            }
            for listed in candidates
        ],
        "params": params,
        "inputs": inputs,
    }


def _check(check: "Check") -> dict[str, Any]:
    facts = {"candidate": check.candidate, "name": check.name, "bound": check.bound, "passed": check.passed}
    return {**facts, **check.estimate.to_json()}


def _estimates(values: "dict[str, Estimate] | None") -> dict[str, Any] | None:
    return None if values is None else {name: value.to_json() for name, value in values.items()}


def _model(folder: Path) -> str | None:
    try:
        return model_digest(folder)
    except (InputMissing, InputCorrupt):
        return None


def _file(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None
