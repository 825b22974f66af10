"""What the registry holds, as plain values and as text."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clinprompt.errors import InputMissing
from clinprompt.evaluation.estimate import interval_text
from registry import quarantine, tracking
from registry.model_folder import FILES_TAG
from registry.signature import SIGNATURE, claimed
from registry.versions import PROMOTED, REFUSED

if TYPE_CHECKING:
    from mlflow import MlflowClient

Model = dict[str, Any]
SHOWN = "test_balanced_accuracy"
_COLUMNS = (
    "MODEL", "VERSION", "ALIASES", "STATE", "METHOD", "SEED", "BALANCED ACCURACY", "CREATED", "PROMOTED", "PAYLOAD",
)  # fmt: skip


def models() -> list[Model]:
    """Every registered model with its versions, newest first: aliases, lineage tags and the run's metrics."""
    store = tracking.local_store()
    if store is not None and not store.exists():
        return []
    client = tracking.connect()
    with tracking.service_errors():
        return [_model(client, registered) for registered in _all_models(client)]


def model(name: str) -> Model:
    """One registered model.

    Raises:
        InputMissing: there is none of this name; the message lists those that exist.
    """
    all_facts = models()
    for facts in all_facts:
        if facts["name"] == name:
            return facts
    names = ", ".join(facts["name"] for facts in all_facts) or "none yet"
    raise InputMissing(f"There is no registered model {name!r} at {tracking.shown_uri()}; registered: {names}.")


def table(models_facts: list[Model]) -> str:
    """One line per version, aligned."""
    rows = [_COLUMNS] + [_row(entry["name"], version) for entry in models_facts for version in entry["versions"]]
    widths = [max(len(row[c]) for row in rows) for c in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def details(entry: Model) -> str:
    """A model's versions, one block each."""
    if not entry["versions"]:
        return f"{entry['name']} has no version.\n"
    blocks = []
    for version in entry["versions"]:
        aliases = f" ({', '.join(version['aliases'])})" if version["aliases"] else ""
        metrics = version["metrics"]
        values = {key: _interval(metrics, key) for key in metrics if not key.endswith(("_low", "_high"))}
        facts = {key: value for key, value in version["lineage"].items() if key != FILES_TAG}
        if version["signer"] is not None:
            facts[SIGNATURE] = version["signer"]
        facts |= values
        width = max(map(len, facts), default=0)
        lines = [f"  {key.ljust(width)}  {value}" for key, value in facts.items()]
        state = f", {version['state']}" if version["state"] else ""
        blocks.append("\n".join([f"{entry['name']} version {version['version']}{aliases}{state}", *lines]))
    return "\n\n".join(blocks) + "\n"


def _all_models(client: "MlflowClient") -> list[Any]:
    registered: list[Any] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token, order_by=["name ASC"])
        registered += page
        token = page.token
        if not token:
            return registered


def _all_versions(client: "MlflowClient", name: str) -> list[Any]:
    versions: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = {_quoted(name)}", page_token=token)
        versions += page
        token = page.token
        if not token:
            return sorted(versions, key=lambda version: -int(version.version))


def _quoted(name: str) -> str:
    """A name in a filter of MLflow's search: whatever others have registered is listed."""
    return f'"{name}"' if "'" in name else f"'{name}'"


def _model(client: "MlflowClient", registered: Any) -> Model:
    aliases = {str(alias): int(version) for alias, version in registered.aliases.items()}
    versions = [_version(client, entity, aliases) for entity in _all_versions(client, registered.name)]
    return {"name": str(registered.name), "aliases": aliases, "versions": versions}


def _version(client: "MlflowClient", entity: Any, aliases: dict[str, int]) -> dict[str, Any]:
    number = int(entity.version)
    metrics = _metrics(client, entity.run_id) if entity.run_id else {}
    return {
        "version": number,
        "aliases": sorted(alias for alias, version in aliases.items() if version == number),
        "created": _date(int(entity.creation_timestamp)),
        "promoted": entity.tags.get(PROMOTED),
        "state": _state(entity.tags),
        "lineage": dict(sorted(entity.tags.items())),
        "signer": claimed(entity.tags),
        "metrics": dict(sorted(metrics.items())),
        "run": entity.run_id,
    }


def _state(tags: dict[str, str]) -> str | None:
    if tags.get(quarantine.MARK) == quarantine.HELD:
        return "quarantined"
    return "refused" if REFUSED in tags else None


def _metrics(client: "MlflowClient", run_id: str) -> dict[str, float]:
    """A run's metrics; none of a run that was removed, as `mlflow gc` does."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_run(run_id).data.metrics)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def _row(name: str, version: dict[str, Any]) -> tuple[str, ...]:
    lineage, metrics = version["lineage"], version["metrics"]
    value = _interval(metrics, SHOWN)
    aliases = ", ".join(version["aliases"]) or "-"
    payload = lineage.get("payload_digest", "-")[:12]
    return (
        name,
        str(version["version"]),
        aliases,
        version["state"] or "-",
        lineage.get("candidate", lineage.get("method", "-")),
        lineage.get("seed", "-"),
        value,
        version["created"][:10],
        (version["promoted"] or "-")[:10],
        payload,
    )


def _date(milliseconds: int) -> str:
    """A moment in UTC, as "2025-01-31T12:00:00+00:00"."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _interval(metrics: dict[str, float], name: str) -> str:
    return interval_text(metrics.get(name), metrics.get(f"{name}_low"), metrics.get(f"{name}_high"), "-")
