"""What the protocol asks of MLflow."""

from typing import Protocol

from clinprompt.errors import InputMissing
from registry import tracking, versions
from registry.protocol.journal import VersionRef
from registry.versions import Version


class Models(Protocol):
    """The aliases, versions and tags of one registered model; each method is one step that a crash may follow."""

    name: str

    def by_alias(self, alias: str) -> Version | None:
        """The version that carries the alias."""

    def by_number(self, number: int) -> Version | None:
        """The version with this number."""

    def set_alias(self, alias: str, number: int) -> None:
        """Move an alias."""

    def delete_alias(self, alias: str) -> None:
        """Take an alias away."""

    def set_tag(self, number: int, key: str, value: str) -> None:
        """Set a tag of a version."""


class MlflowModels:
    """The models of the MLflow server or store that `MLFLOW_TRACKING_URI` names."""

    def __init__(self, name: str) -> None:
        self.name = name

    def by_alias(self, alias: str) -> Version | None:
        """The version that carries the alias."""
        return versions.by_alias(self.name, alias)

    def by_number(self, number: int) -> Version | None:
        """The version with this number."""
        try:
            return versions.by_number(tracking.connect(), self.name, number)
        except InputMissing:
            return None

    def set_alias(self, alias: str, number: int) -> None:
        """Move an alias."""
        client = tracking.connect()
        with tracking.service_errors():
            tracking.insert(client.set_registered_model_alias, self.name, alias, str(number))

    def delete_alias(self, alias: str) -> None:
        """Take an alias away."""
        client = tracking.connect()
        with tracking.service_errors():
            client.delete_registered_model_alias(self.name, alias)

    def set_tag(self, number: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        client = tracking.connect()
        with tracking.service_errors():
            tracking.insert(client.set_model_version_tag, self.name, str(number), key, value)


def ref(version: Version | None) -> VersionRef | None:
    """A version as the journal tells of it."""
    return VersionRef(version=version.number, payload=version.tags.get("payload_digest")) if version else None
