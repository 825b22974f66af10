"""Versions of registered models: look up by alias or payload digest, create when absent."""

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from registry import tracking
from registry.local_store import damage
from registry.model_folder import FILES_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
PREVIOUS = "previous"
PROMOTED = "promoted_at"  # the tag of a version: when it became the champion
REFUSED = "refused"  # the tag of a version that was tried out last and did not become the champion: why
_NAME = re.compile(r"\w[\w .-]{0,254}")
_LONGEST_TEXT = 5000  # characters of a description that MLflow keeps
_HIGHEST = 2**31 - 1  # MLflow keeps the numbers of versions as integers of 32 bits
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; the model has no such alias


@dataclass(frozen=True)
class Version:
    """A version of the registered model `name`, with its tags."""

    name: str
    number: int
    tags: dict[str, str]

    def tag(self, key: str) -> str:
        """A lineage tag.

        Raises:
            InputCorrupt: it isn't there, so that the version was not made by `promote`.
        """
        if key not in self.tags:
            raise InputCorrupt(
                f"Version {self.number} of the registered model {self.name!r} has no tag {key!r}: it was not made by "
                "this pipeline, or by an earlier release of it. Take its aliases away and run again."
            )
        return self.tags[key]

    def version_in(self, key: str) -> int:
        """The number of another version, as a tag keeps it.

        Raises:
            InputCorrupt: the tag isn't there, or holds no number.
        """
        value = self.tag(key)
        if not re.fullmatch("[0-9]{1,18}", value):
            raise InputCorrupt(
                f"The tag {key!r} of version {self.number} of {self.name!r} is {value[:40]!r}, and should be the "
                "number of a version: somebody has changed it. Set it right in MLflow, or take the aliases away."
            )
        return int(value)


def as_number(value: object) -> int:
    """A version's number, also as text; whether there is such a version is not looked at.

    Raises:
        BadParams: it is none. Digits of other scripts, "+1" and "1_0", which `int` takes, are refused: whoever writes
            them may mean something else.
    """
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,20}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadParams(f"{str(value)[:40]!r} is no version's number, which is written in the digits 0 to 9.")


def check_name(name: str) -> str:
    """A registered model's name, as it is.

    Raises:
        BadParams: no model can have it: MLflow takes no such name, or its searches can't be asked for it.
    """
    if not _NAME.fullmatch(name):
        raise BadParams(
            f"{name!r} can't be the name of a registered model: it must be of letters, digits, '.', '_', '-' and "
            "spaces, and begin with a letter or a digit."
        )
    return name


def by_alias(name: str, alias: str) -> Version | None:
    """The version that carries the alias, or None.

    A local store is read without MLflow, whose import alone takes longer than all else that an unchanged run does.

    Raises:
        BadParams: no model can have this name.
        InputCorrupt: the local store is damaged.
        ServiceDown: the MLflow server does not answer.
    """
    check_name(name)
    store = tracking.local_store()
    if store is None:
        return _by_alias(tracking.connect(), name, alias)
    if not store.exists():
        return None
    try:
        return _read_sqlite(store, name, alias)
    except sqlite3.OperationalError:  # locked, or the tables of another release of MLflow: ask MLflow itself
        return _by_alias(tracking.connect(), name, alias)
    except sqlite3.DatabaseError as error:
        known = damage(store, error)
        raise known or error from error.__cause__


def require(name: str) -> None:
    """See that there is a registered model of this name, and make nothing: no store, no lease, no folder.

    Raises:
        BadParams: no model can have this name.
        InputMissing: there is none.
        ServiceDown: the MLflow server does not answer.
    """
    check_name(name)
    store = tracking.local_store()
    if store is None or store.exists():
        client = tracking.connect()
        from mlflow.exceptions import MlflowException

        with tracking.service_errors():
            try:
                client.get_registered_model(name)
                return
            except MlflowException as error:
                if error.error_code not in _ABSENT:
                    raise
    raise InputMissing(
        f"There is no registered model {name!r} at {tracking.shown_uri()}; `python -m registry list` tells all."
    )


def by_number(client: "MlflowClient", name: str, number: int) -> Version:
    """The version with this number.

    Raises:
        BadParams: no model can have this name, or the number is none.
        InputMissing: there is none.
    """
    check_name(name)
    number = as_number(number)
    from mlflow.exceptions import MlflowException

    if 0 < number <= _HIGHEST:
        with tracking.service_errors():
            try:
                return _version(client.get_model_version(name, str(number)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
    raise InputMissing(f"There is no version {number} of {name!r} at {tracking.shown_uri()}.")


def run_of(client: "MlflowClient", version: Version) -> str:
    """The id of the run that logged a version's model."""
    with tracking.service_errors():
        return str(client.get_model_version(version.name, str(version.number)).run_id)


def search(client: "MlflowClient", name: str, condition: str) -> list[Version]:
    """The versions of `name` that meet a condition of MLflow's search."""
    return search_all(client, f"name = '{check_name(name)}' and {condition}")


def search_all(client: "MlflowClient", condition: str) -> list[Version]:
    """The versions of all models that meet a condition of MLflow's search."""
    matches: list[Version] = []
    token = None
    with tracking.service_errors():
        while True:
            page = client.search_model_versions(condition, page_token=token)
            matches += map(_version, page)
            token = page.token
            if not token:
                return matches


def by_payload(client: "MlflowClient", name: str, payload_digest: str) -> Version | None:
    """The first version of `name` with this payload, or None. Versions that can't be verified don't count."""
    matches = search(client, name, f"tags.payload_digest = '{payload_digest}'")
    matches = [version for version in matches if FILES_TAG in version.tags]
    return min(matches, key=lambda version: version.number, default=None)


def find_or_create(
    client: "MlflowClient", name: str, source: str, run_id: str, tags: dict[str, str], model_id: str | None = None
) -> Version:
    """The version of `name` that holds the payload of `tags`; made from `source` when there is none.

    `model_id` goes with a source that is a logged model: a server takes no such source without it.

    MLflow can't create a version on the condition that there is none yet. Two promotions on a server may therefore
    both create one; the first then stays, and whoever made another takes it back.
    """
    from mlflow.exceptions import MlflowException

    payload_digest = tags["payload_digest"]
    existing = by_payload(client, name, payload_digest)
    if existing is not None:
        return existing
    with tracking.service_errors():
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        created = _version(client.create_model_version(name, source, run_id=run_id, tags=tags, model_id=model_id))
        first = by_payload(client, name, payload_digest) or created
        if first.number != created.number:
            client.delete_model_version(name, str(created.number))
        return first


def mark_refused(client: "MlflowClient", version: Version, why: str | None) -> None:
    """Say of a version, and of its candidate, why it was refused when it was tried out; None: it was not."""
    for name, number in ((version.name, version.number), _candidate(version)):
        with tracking.service_errors():
            if why is not None:
                tracking.insert(client.set_model_version_tag, name, str(number), REFUSED, why[:_LONGEST_TEXT])
            elif REFUSED in client.get_model_version(name, str(number)).tags:
                client.delete_model_version_tag(name, str(number), REFUSED)


def _candidate(version: Version) -> tuple[str, int]:
    return version.tag("candidate_model"), version.version_in("candidate_version")


def describe(client: "MlflowClient", version: Version, model: str, text: str, tags: dict[str, str]) -> None:
    """Say what a registered model and a version of it are, where people look.

    Args:
        model: a few words about the registered model.
        text: about the version, in Markdown.
        tags: of the registered model.
    """
    with tracking.service_errors():
        client.update_registered_model(version.name, model[:_LONGEST_TEXT])
        client.update_model_version(version.name, str(version.number), text[:_LONGEST_TEXT])
        for key, value in tags.items():
            tracking.insert(client.set_registered_model_tag, version.name, key, value)


def _by_alias(client: "MlflowClient", name: str, alias: str) -> Version | None:
    from mlflow.exceptions import MlflowException

    with tracking.service_errors():
        try:
            # A server with logins forbids the alias of a model that is not there, instead of saying that it isn't.
            client.get_registered_model(name)
            return _version(client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise


def _read_sqlite(store: Path, name: str, alias: str) -> Version | None:
    condition = "workspace = 'default' AND name = ?"
    with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as database:
        query = f"SELECT version FROM registered_model_aliases WHERE {condition} AND alias = ?"  # noqa: S608
        row = database.execute(query, (name, alias)).fetchone()
        if row is None:
            return None
        query = f"SELECT key, value FROM model_version_tags WHERE {condition} AND version = ?"  # noqa: S608
        return Version(name, int(row[0]), dict(database.execute(query, (name, row[0])).fetchall()))


def _version(entity: Any) -> Version:
    return Version(str(entity.name), int(entity.version), {str(k): str(v) for k, v in entity.tags.items()})
