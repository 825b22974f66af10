"""Verify a registered version, tell where it comes from, and what differs between two."""

from typing import Any

from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import read_json, sha256_file
from registry import listing, signature, tracking
from registry.chosen import chosen
from registry.consumer import Champion
from registry.model_folder import FILES_TAG, RECORD
from registry.protocol.journal import Entry, Journal
from registry.protocol.location import address, store_at
from registry.versions import PROMOTED, Version

Facts = dict[str, Any]
_DECISION, _LINEAGE = "decision.json", "lineage.json"


def verify(name: str, which: int | str | None = None, *, journal: str | None = None) -> Facts:
    """Check a version without running any of it: every file's digest, its lineage, its decision, and the journal.

    Args:
        which: a version's number or an alias; by default the champion.
        journal: `registry.journal` of params.yaml.

    Returns:
        name, version, payload_digest, files (how many were checked), checks (what was), not_checked (what should have
        been, by its name why it could not be), signed, and signer: who the signature says that it is of. The signature
        is among the checks where a key is there to check it by. The journal is one of a version that was promoted, and
        of no other.

    Raises:
        InputMissing: there is no such version, or a file is missing, or the journal of a version that was promoted is.
        InputCorrupt: a file, a tag or the journal is not what was registered.
        ServiceDown: a server does not answer.
    """
    version = chosen(name, which)
    registered = Champion(version)
    folder = registered.model_folder
    facts = origin(registered)
    _check_tags(version, facts)
    if sha256_file(folder / RECORD / _DECISION) != facts["decision_digest"]:
        raise InputCorrupt(f"Version {version.number} of {name!r} was registered with another decision: don't use it.")
    in_journal, unchecked = _check_journal(version, address(name, journal), entries(name, journal))
    return {
        "name": name,
        "version": version.number,
        "payload_digest": registered.payload_digest,
        "files": sum(path.is_file() for path in folder.rglob("*")),
        "checks": [
            "files",
            "lineage",
            "decision",
            *(["journal"] if in_journal else []),
            *(["signature"] if registered.signature_checked else []),
        ],
        "not_checked": {"journal": unchecked} if unchecked else {},
        "signed": signature.SIGNATURE in version.tags,
        "signer": signature.claimed(version.tags),
    }


def lineage(name: str, which: int | str | None = None, *, journal: str | None = None) -> Facts:
    """Where a version comes from: its lineage file, verified; who promoted it and when; and the run in MLflow.

    Raises:
        InputMissing, InputCorrupt, ServiceDown: as `verify`.
    """
    version = chosen(name, which)
    told = [
        {"entry": entry.number, "operation": entry.operation, "by": entry.by, "at": entry.at, "reason": entry.reason}
        for entry in entries(name, journal)
        if entry.counts and version.number in _named(entry)
    ]
    client = tracking.connect()
    with tracking.service_errors():
        run = client.get_model_version(name, str(version.number)).run_id
    airflow = {key: value for key, value in version.tags.items() if key.startswith("airflow_")}
    candidate = {key: version.tags[key] for key in ("candidate_model", "candidate_version") if key in version.tags}
    return {
        "name": name,
        "version": version.number,
        "lineage": origin(Champion(version)),
        "registered": {"run": run, **candidate, **airflow},
        "journal": told,
    }


def diff(name: str, first: int | str, second: int | str) -> Facts:
    """What differs in lineage, params and metrics between two versions: by key, the two values.

    Raises:
        InputMissing: there is no such version.
        ServiceDown: the MLflow server does not answer.
    """
    sides = [_side(name, chosen(name, which)) for which in (first, second)]
    parts = {part: _differing(sides[0][part], sides[1][part]) for part in ("lineage", "params", "metrics")}
    return {"name": name, "versions": [side["version"] for side in sides], **parts}


def origin(registered: Champion) -> dict[str, str]:
    """The lineage file of a version, whose digest is checked."""
    facts = read_json(registered.model_folder / RECORD / _LINEAGE)
    return {str(key): str(value) for key, value in facts.items()}


def entries(name: str, journal: str | None) -> list[Entry]:
    """The journal of a registered model, oldest first; empty where there is none.

    Raises:
        InputCorrupt: an entry is missing or damaged.
        ServiceDown: its store does not answer.
    """
    where = address(name, journal)
    return Journal(store_at(where), name).entries() if where is not None else []


def text(facts: Facts) -> str:
    """Nested facts as aligned lines, for people."""
    lines: list[str] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            width = max(map(len, value), default=0)
            lines += [f"{key}:", *(f"  {inner.ljust(width)}  {_shown(found)}" for inner, found in value.items())]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{key}:", *(f"  {'  '.join(_shown(found) for found in row.values() if found)}" for row in value)]
        else:
            lines.append(f"{key}: {_shown(value)}")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return " | ".join("-" if one is None else str(one) for one in value) if isinstance(value, list) else str(value)


def _named(entry: Entry) -> set[int | None]:
    refs = [entry.before if entry.operation == "rollback" else None, entry.after]
    return {one.version for one in refs if one is not None} | {entry.lifted}


def _check_tags(version: Version, facts: dict[str, str]) -> None:
    """The tags are an index of the lineage file, and must say the same."""
    for key, value in facts.items():
        if version.tags.get(key) != value:
            raise InputCorrupt(
                f"The tag {key!r} of version {version.number} of {version.name!r} is not what its lineage.json says: "
                "somebody has changed it. Set it right in MLflow, or don't use this model."
            )


def _check_journal(version: Version, where: str | None, told: list[Entry]) -> tuple[bool, str | None]:
    """Whether the journal names the version, with this payload; and where it can't name one that was promoted, why.

    A journal that must name a version and does not is an error: who could take an entry away could also have set the
    alias by hand.
    """
    about = f"Version {version.number} of {version.name!r}"
    payloads = {entry.after.payload for entry in told if entry.counts and entry.after and _is(entry.after, version)}
    if payloads and payloads != {version.tags.get("payload_digest")}:
        raise InputCorrupt(f"{about} was promoted with another payload: don't use this model.")
    at = version.tags.get(PROMOTED)
    if payloads or at is None:
        return bool(payloads), None
    if where is None:
        return False, f"it was promoted at {at} on a server, and no journal is named that could tell of it"
    if not told:
        raise InputMissing(
            f"{about} was promoted at {at}, and the journal at {where} is empty or gone; put its back-up in its place. "
            "(Where that is lost, the next promotion or rollback begins a journal with the champion that it finds.)"
        )
    if at < told[0].at:  # both in UTC, written alike
        return False, f"it was promoted at {at}, and the journal begins at {told[0].at}"
    raise InputCorrupt(
        f"{about} was promoted at {at} as its tag says, and no entry of the journal at {where} names it: don't use "
        "this model."
    )


def _is(reference: Any, version: Version) -> bool:
    return bool(reference.version == version.number)


def _side(name: str, version: Version) -> Facts:
    shown = next(one for one in listing.model(name)["versions"] if one["version"] == version.number)
    params: dict[str, Any] = {}
    if shown["run"]:
        client = tracking.connect()
        with tracking.service_errors():
            params = dict(client.get_run(shown["run"]).data.params)
    untold = (FILES_TAG, signature.SIGNATURE, signature.EARLIER_KEY)
    origin_tags = {key: value for key, value in shown["lineage"].items() if key not in untold}
    return {"version": version.number, "lineage": origin_tags, "params": params, "metrics": shown["metrics"]}


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Any]]:
    keys = sorted(first.keys() | second.keys())
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}
