"""What the shown candidate rests on: code, backbone, settings, and files by digest."""

from pathlib import Path
from typing import Any

from clinprompt.backbones.table import read_table
from clinprompt.evaluation.decision import DecisionRecord, MeasuredCandidate
from clinprompt.revision import git_revision
from clinprompt.tuned.record import ModelRecord

UNKNOWN_LIMITS = "It is not in clinprompt's table of backbones: what it was trained on is not known here."


def origin(
    digests: dict[str, str], decision: DecisionRecord, shown: MeasuredCandidate | None, model: ModelRecord | None
) -> dict[str, Any]:
    """The section's values.

    Args:
        digests: of the run's files, by what they are.
        model: the record of the shown candidate's model; None where there is none.
    """
    rows: dict[str, str | None] = dict(digests)
    settings = {f"gate: {key}": value for key, value in sorted(decision.params.to_json().items())}
    facts: dict[str, Any] = {"code": _code(), "registered": _registered(decision), "backbone": None, "versions": {}}
    if shown is not None:
        rows["model"] = shown.model_digest
    if model is not None:
        rows[f"backbone {model.backbone.name}"] = model.backbone.digest
        settings = {f"{model.candidate}: {key}": value for key, value in sorted(model.config.items())} | settings
        facts |= {"backbone": _backbone(model.backbone.name), "versions": dict(sorted(model.versions.items()))}
    return {**facts, "digests": rows, "settings": settings, "parameters": model and model.trainable_parameters}


def model_record(models: Path, shown: MeasuredCandidate | None) -> ModelRecord | None:
    """The record of the shown candidate's model; None where it has none."""
    file = models / shown.name / "model.yaml" if shown else None
    return ModelRecord.read(file) if file and file.is_file() else None


def _code() -> str:
    """The commit with its day: a recorded fact, so that equal inputs give equal bytes."""
    revision = git_revision()
    return f"commit {revision.commit} of {revision.date}" if revision else "not from a git checkout"


def _registered(decision: DecisionRecord) -> str:
    """The version in the registry, as far as the decision tells: a promotion may come before the report or after."""
    champion = decision.champion
    address = f"version {champion.version}, models:/{champion.name}/{champion.version}" if champion else ""
    if decision.chosen is None:
        return f"no new version; the champion stays {address}" if champion else "no version"
    if champion and champion.model_digest == decision.chosen.model_digest:
        return address
    return "by the stage promote, as the version whose tag decision_digest is the decision's SHA-256 below"


def _backbone(name: str) -> dict[str, str]:
    entry = read_table().get(name)
    if entry is None:
        return {"name": name, "title": "a backbone of your own", "limits": UNKNOWN_LIMITS}
    return {"name": name, "title": entry.title, "limits": entry.limits}
