"""Collect what nothing leads to: versions that no alias, no entry of the journal and no lineage names."""

from typing import TYPE_CHECKING, Any

from clinprompt.errors import BadParams
from registry import listing, protocol, quarantine, tracking
from registry.protocol.journal import Entry
from registry.protocol.location import address
from registry.versions import PROMOTED, Version, check_name, search, search_all

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ALL = "tags.payload_digest != ''"


def gc(name: str, *, candidate_model: str | None = None, delete: bool = False, journal: str | None = None) -> Any:
    """Find, and delete where asked to, versions of a production model and of its candidates that nothing names.

    A version stays that carries an alias, that has been the champion as its tag or an entry of the journal says, that
    is in quarantine, or that the lineage of a version that stays names, of this model or of another one. What was
    deleted goes from MLflow's list; `mlflow gc` frees its files.

    Args:
        name: the production model.
        candidate_model: the candidates' model; by default the one that the production versions name.
        delete: without it nothing is changed.
        journal: `registry.journal` of params.yaml.

    Returns:
        versions: of each model the numbers found; deleted: whether they were.

    Raises:
        BadParams: there is no journal, without which nobody can tell what was the champion, or is being promoted.
        InputMissing: there is no such model.
        ServiceDown: a server does not answer.
    """
    listing.model(name)
    if address(name, journal) is None:
        raise BadParams(
            f"{name!r} has no journal, so nothing tells which of its versions were the champion, and which one another "
            "process is promoting right now; nothing was deleted. Name the journal (registry.journal in params.yaml)."
        )
    with protocol.opened(name, journal) as turn:
        client = tracking.connect()
        production = search(client, name, _ALL)
        kept = _aliased(name) | {number for entry in turn.journal.entries() for number in _named(entry)}
        loose = [one for one in production if one.number not in kept and not _stays(one)]
        going = {(name, one.number) for one in loose}
        models = {one.tags["candidate_model"] for one in production if "candidate_model" in one.tags}
        found = {name: sorted(one.number for one in loose)}
        for model in sorted(models | ({candidate_model} if candidate_model else set())):
            found[model] = _loose_candidates(client, model, going)
        if delete:
            with tracking.service_errors():
                for model, numbers in found.items():
                    for number in numbers:
                        client.delete_model_version(model, str(number))
    return {
        "name": name,
        "versions": {model: numbers for model, numbers in found.items() if numbers},
        "deleted": delete,
    }


def _stays(version: Version) -> bool:
    """Whether its own tags keep it: it is in quarantine, or was the champion, also where a journal was lost since."""
    return quarantine.is_held(version) or PROMOTED in version.tags


def _loose_candidates(client: "MlflowClient", model: str, going: set[tuple[str, int]]) -> list[int]:
    """The candidates that no version names, of whichever production model; those that are `going` don't count."""
    naming = search_all(client, f"tags.candidate_model = '{check_name(model)}'")
    named = {one.tags.get("candidate_version") for one in naming if (one.name, one.number) not in going}
    kept, candidates = _aliased(model), search(client, model, _ALL)
    return sorted(one.number for one in candidates if str(one.number) not in named and one.number not in kept)


def _aliased(model: str) -> set[int | None]:
    client = tracking.connect()
    with tracking.service_errors():
        return {int(number) for number in client.get_registered_model(model).aliases.values()}


def _named(entry: Entry) -> set[int | None]:
    refs = [one.version for one in (entry.before, entry.after) if one is not None]
    return {*refs, entry.previous, entry.lifted}
