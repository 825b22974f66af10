"""Which candidate a decision is shown with. Without torch and safetensors, which the report's image has not."""

from typing import Any

from clinprompt.contract.candidates import CandidateId


def shown_candidate(record: dict[str, Any]) -> dict[str, Any] | None:
    """The chosen candidate; after a rejection the one that was best on the validation split; None if none was measured.

    Its `name` is that of its folder.
    """
    named = [{**one, "name": str(CandidateId(one["candidate"], one["seed"]))} for one in record["candidates"]]
    chosen = record["chosen"]
    if chosen:
        return next(one for one in named if one["name"] == chosen["folder"])
    metric = record["params"].get("select_by", "balanced_accuracy")

    def value(one: dict[str, Any]) -> float | None:
        found: float | None = ((one["val"] or {}).get(metric) or {}).get("value")
        return found

    measured = [one for one in named if value(one) is not None]
    return max(measured, key=lambda one: value(one) or 0.0, default=None)
