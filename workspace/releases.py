"""Releases: versions of a dataset's files that never change, published into the store by people."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clinprompt.contract.tasks import PartitionKey
from clinprompt.errors import BadParams, InputMissing
from workspace.repo import Workspace
from workspace.store import Store, checked_name

_PREFIX = "releases/"


@dataclass(frozen=True)
class DatasetRelease:
    """One version of a dataset's files. `digest` is DVC's md5 of the folder or file."""

    dataset: str
    name: str
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
    size: int
    files: int | None
    published: str  # UTC, ISO 8601

    @property
    def partition(self) -> str:
        """`dataset@release`."""
        return str(PartitionKey(self.dataset, self.name))


def list_releases(store: Store, dataset: str | None = None) -> list[DatasetRelease]:
    """All releases, or those of a dataset, the oldest first."""
    keys = store.keys(f"{_PREFIX}{dataset}/" if dataset else _PREFIX)
    releases = [release for key in keys if (release := store.read_as(DatasetRelease, key)) is not None]
    return sorted(releases, key=lambda release: (release.published, release.partition))


def find_release(store: Store, dataset: str, name: str | None) -> DatasetRelease:
    """A release by name, or the newest of the dataset.

    Raises:
        InputMissing: there is none; tells how to publish one.
    """
    if name is not None:
        found = store.read_as(DatasetRelease, _key(dataset, name))
        if found is not None:
            return found
    else:
        releases = list_releases(store, dataset)
        if releases:
            return releases[-1]
    raise InputMissing(
        f"The store {store.url} holds no release {name or ''} of {dataset}".replace("  ", " ")
        + f"; publish one: python -m workspace release {dataset} FOLDER --name NAME."
    )


def publish(store: Store, dataset: str, source: Path, name: str | None) -> tuple[DatasetRelease, bool]:
    """Upload a dataset's files and list them as a release; False when it was there already.

    Args:
        name: by default the first 12 digits of the digest.

    Raises:
        BadParams: the name is taken by other files, or is not one.
        InputMissing: there are no files.
    """
    if not source.exists() or (source.is_dir() and not any(source.iterdir())):
        raise InputMissing(f"{source} holds no files; name the folder with the dataset's files.")
    store.read(_key(dataset, name or "by-digest"))  # refuses what is no name, before anything is sent
    source = source.absolute()
    with Workspace.empty(store) as workspace:  # which is the working directory from here on
        digest, size, files = workspace.upload(source)
    name = name or digest[:12]
    existing = store.read_as(DatasetRelease, _key(dataset, name))
    if existing is not None:
        if existing.digest != digest:
            raise BadParams(
                f"The release {dataset}@{name} exists with other files; releases never change: choose another name."
            )
        return existing, False
    release = DatasetRelease(dataset, name, digest, size, files, datetime.now(UTC).isoformat(timespec="seconds"))
    content: dict[str, Any] = asdict(release)
    store.write(_key(dataset, name), content)
    return release, True


def _key(dataset: str, name: str) -> str:
    return f"{_PREFIX}{checked_name(dataset)}/{checked_name(name)}.json"
